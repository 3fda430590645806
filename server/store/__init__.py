"""State that outlives a request: responses, their items and events, and conversations.

`store.Store` is the way in: it runs short transactions on threads of its own, so that the event
loop never waits for the disk. `records.Records` is what a transaction can do. The database is
SQLite or PostgreSQL; SQLAlchemy is imported with the first transaction, not with the server.
"""

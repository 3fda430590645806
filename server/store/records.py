"""All that one transaction can do."""

from __future__ import annotations

from sqlalchemy import Connection

from server.store.conversations import Conversations
from server.store.event_log import EventLog
from server.store.responses import Responses
from server.store.runners import Runners
from server.store.stored_batches import StoredBatches
from server.store.stored_files import StoredFiles
from server.store.upkeep import Upkeep


class Records:
    """The records as one transaction sees them; good until it ends."""

    def __init__(self, connection: Connection) -> None:
        self.responses = Responses(connection)
        self.conversations = Conversations(connection)
        self.events = EventLog(connection)
        self.runners = Runners(connection)
        self.files = StoredFiles(connection)
        self.batches = StoredBatches(connection)
        self.upkeep = Upkeep(connection)

    @property
    def added(self) -> int:
        """The bytes that this transaction stored."""
        return self.responses.added + self.conversations.added

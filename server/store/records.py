"""All that one transaction can do."""

from __future__ import annotations

from sqlalchemy import Connection

from server.store.conversations import Conversations
from server.store.responses import Responses
from server.store.upkeep import Upkeep


class Records:
    """The records as one transaction sees them; good until it ends."""

    def __init__(self, connection: Connection) -> None:
        self.responses = Responses(connection)
        self.conversations = Conversations(connection)
        self.upkeep = Upkeep(connection)

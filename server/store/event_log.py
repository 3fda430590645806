"""Events of the streams of responses that are made in the background."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from server.store.kinds import StoredEvent
from server.store.schema import events


class EventLog:
    """The stored events."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, response_id: str, added: Sequence[StoredEvent]) -> int:
        """Append events of the response's stream; returns their bytes."""
        if added:
            rows = [
                {"response_id": response_id, **msgspec.structs.asdict(event)} for event in added
            ]
            self._connection.execute(insert(events), rows)
        return sum(len(event.body) for event in added)

    def after(self, response_id: str, sequence: int) -> list[StoredEvent]:
        """The events of the response's stream after number ``sequence``."""
        rows = self._connection.execute(
            select(events.c.sequence, events.c.type, events.c.body)
            .where(events.c.response_id == response_id, events.c.sequence > sequence)
            .order_by(events.c.sequence)
        )
        return [StoredEvent(row.sequence, row.type, bytes(row.body)) for row in rows]

    def bytes(self, response_id: str) -> int:
        """The bytes of the response's events."""
        total = select(func.coalesce(func.sum(func.length(events.c.body)), 0))
        of_response = total.where(events.c.response_id == response_id)
        return int(self._connection.execute(of_response).scalar_one())

    def remove(self, response_id: str) -> None:
        """Remove the response's events."""
        self._connection.execute(delete(events).where(events.c.response_id == response_id))

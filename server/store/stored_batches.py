"""Batches: their states. Their lines and results are files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from server.store.kinds import UNFINISHED, BatchPage, BatchStatus, PageRequest, StoredBatch
from server.store.listing import listed
from server.store.schema import batches


class StoredBatches:
    """The stored batches."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, batch: StoredBatch) -> None:
        """Store a new batch."""
        self._connection.execute(insert(batches).values(**msgspec.structs.asdict(batch)))

    def get(self, batch_id: str, owner: str) -> StoredBatch | None:
        """The batch, if it is there and ``owner``'s."""
        found = select(batches).where(batches.c.id == batch_id, batches.c.owner == owner)
        row = self._connection.execute(found).one_or_none()
        return None if row is None else _batch(row)

    def page(self, owner: str, asked: PageRequest, prefix: str) -> BatchPage:
        """Some of ``owner``'s batches whose ids begin with ``prefix``; raises UnknownCursor."""
        named = batches.c.id.startswith(prefix, autoescape=True)
        rows, more = listed(self._connection, batches, asked, batches.c.owner == owner, named)
        return BatchPage([_batch(row) for row in rows], more)

    def unfinished(self) -> list[StoredBatch]:
        """All batches that a server still has to work on, oldest first, whoever's they are."""
        rows = self._connection.execute(
            select(batches).where(batches.c.status.in_(UNFINISHED)).order_by(batches.c.key)
        )
        return [_batch(row) for row in rows]

    def update(self, batch: StoredBatch, expected: Sequence[BatchStatus]) -> bool:
        """Store the batch's status and body; False, and nothing, if its state is another.

        The state may have changed meanwhile: a client cancels, or another server has gone on.
        """
        changed = self._connection.execute(
            update(batches)
            .where(batches.c.id == batch.id, batches.c.status.in_(expected))
            .values(status=batch.status, body=batch.body)
        )
        return bool(changed.rowcount)

    def delete(self, batch_id: str) -> None:
        """Remove the batch, if it is there."""
        self._connection.execute(delete(batches).where(batches.c.id == batch_id))

    def remove_before(self, created_at: float) -> None:
        """Remove batches that have ended and were made before ``created_at``."""
        self._connection.execute(
            delete(batches).where(
                batches.c.created_at < created_at, batches.c.status.not_in(UNFINISHED)
            )
        )


def _batch(row: Any) -> StoredBatch:
    return StoredBatch(
        id=row.id,
        owner=row.owner,
        created_at=row.created_at,
        status=row.status,
        body=bytes(row.body),
    )

"""Counting what is stored, keeping it within its bounds, and taking all of it out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, delete, func, literal, select, union_all

from server.store.items import remove_from_conversation, remove_from_response
from server.store.kinds import RUNNER_SECONDS, RUNNING, Info, Limits, Swept
from server.store.schema import (
    batches,
    conversations,
    events,
    files,
    items,
    responses,
    runners,
    schema_version,
)
from server.store.stored_files import StoredFiles

_KEPT_SHARE = 0.9
"""A sweep that has to make room leaves this share of the bytes, so that not every write sweeps."""


class Upkeep:
    """What concerns all records, whoever's they are."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def info(self) -> Info:
        """Counts of what is stored."""
        running = select(func.count()).where(responses.c.status.in_(RUNNING))
        span = self._connection.execute(
            select(func.min(responses.c.created_at), func.max(responses.c.created_at))
        ).one()
        return Info(
            version=self._connection.execute(select(schema_version.c.version)).scalar_one(),
            responses=self._count(responses),
            running=self._connection.execute(running).scalar_one(),
            conversations=self._count(conversations),
            items=self._count(items),
            events=self._count(events),
            bytes=self.bytes(),
            files=self._count(files),
            file_bytes=StoredFiles(self._connection).bytes(),
            batches=self._count(batches),
            oldest=span[0],
            newest=span[1],
        )

    def bytes(self) -> int:
        """The bytes of all bodies: what the bound is about."""
        own = select(func.coalesce(func.sum(responses.c.bytes), 0))
        of_items = select(func.coalesce(func.sum(items.c.bytes), 0))
        total = self._connection.execute(own).scalar_one()
        return int(total) + int(self._connection.execute(of_items).scalar_one())

    def sweep(self, limits: Limits) -> Swept:
        """Remove what is too old, then what was not used for longest until the rest fits.

        A chain of responses goes as a whole, and so does a conversation; neither goes while one of
        its responses is running.
        """
        now = time.time()
        self._connection.execute(delete(runners).where(runners.c.seen_at < now - RUNNER_SECONDS))
        total = before = self.bytes()
        target = int(limits.bytes * _KEPT_SHARE) if total > limits.bytes else total
        chains = talks = 0
        for kind, name, used_at in self._by_use():
            if used_at >= now - limits.seconds and total <= target:
                break
            if kind == "chain":
                total -= self._remove_chain(name)
                chains += 1
            else:
                total -= self._remove_conversation(name)
                talks += 1
        return Swept(chains, talks, before - total)

    def export(self) -> Iterator[dict[str, Any]]:
        """Every response and every conversation with its items, as it goes over the wire.

        Whose they are is left out: it is of no use without this database's secret.
        """
        for row in self._connection.execute(
            select(conversations).order_by(conversations.c.created_at)
        ):
            yield {
                "id": row.id,
                "object": "conversation",
                "created_at": row.created_at,
                "metadata": msgspec.Raw(bytes(row.metadata)),
                "items": self._bodies(items.c.conversation_id == row.id),
            }
        for row in self._connection.execute(
            select(responses.c.id, responses.c.body)
            .where(func.length(responses.c.body) > 0)
            .order_by(responses.c.created_at)
        ):
            own = items.c.response_id == row.id
            response = msgspec.json.decode(bytes(row.body), type=dict[str, msgspec.Raw])
            yield {
                **response,
                "output": self._bodies(own, items.c.direction == "output"),
                "input": self._bodies(own, items.c.direction == "input"),
            }

    def _by_use(self) -> list[tuple[str, str, int]]:
        """Chains and conversations without running responses, those least recently used first."""
        # A response whose server is gone runs no longer, though it still says so.
        running = responses.c.runner.in_(select(runners.c.id)) & responses.c.status.in_(RUNNING)
        chains = (
            select(
                literal("chain").label("kind"),
                responses.c.root_id.label("name"),
                func.max(responses.c.used_at).label("used_at"),
            )
            .where(responses.c.root_id.not_in(select(responses.c.root_id).where(running)))
            .group_by(responses.c.root_id)
        )
        busy = select(responses.c.conversation_id).where(
            running, responses.c.conversation_id.is_not(None)
        )
        talks = select(literal("conversation"), conversations.c.id, conversations.c.used_at).where(
            conversations.c.id.not_in(busy)
        )
        both = union_all(chains, talks).subquery()
        rows = self._connection.execute(select(both).order_by(both.c.used_at, both.c.name))
        return [(row.kind, row.name, row.used_at) for row in rows]

    def _remove_chain(self, root_id: str) -> int:
        """Remove the responses of a chain; the bytes that this frees."""
        chain = responses.c.root_id == root_id
        names = select(responses.c.id).where(chain)
        own = select(func.coalesce(func.sum(responses.c.bytes), 0)).where(chain)
        of_chain = items.c.response_id.in_(names)
        freed = int(self._connection.execute(own).scalar_one())
        freed += self._item_bytes(of_chain, items.c.conversation_id.is_(None))
        remove_from_response(self._connection, of_chain)
        self._connection.execute(delete(events).where(events.c.response_id.in_(names)))
        self._connection.execute(delete(responses).where(chain))
        return freed

    def _remove_conversation(self, conversation_id: str) -> int:
        own = items.c.conversation_id == conversation_id
        freed = self._item_bytes(own, items.c.response_id.is_(None))
        remove_from_conversation(self._connection, own)
        self._connection.execute(delete(conversations).where(conversations.c.id == conversation_id))
        return freed

    def _item_bytes(self, *where: Any) -> int:
        total = select(func.coalesce(func.sum(items.c.bytes), 0)).where(*where)
        return int(self._connection.execute(total).scalar_one())

    def _count(self, table: Table) -> int:
        counted = select(func.count()).select_from(table)
        return int(self._connection.execute(counted).scalar_one())

    def _bodies(self, *where: Any) -> list[msgspec.Raw]:
        rows = self._connection.execute(select(items.c.body).where(*where).order_by(items.c.key))
        return [msgspec.Raw(bytes(body)) for body in rows.scalars()]

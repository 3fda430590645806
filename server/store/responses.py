"""Responses: chains of them, their items, and the events of those made in the background."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial

import msgspec
from sqlalchemy import Connection, Select, delete, exists, func, insert, literal, select, update

from server.store.items import add_items, item_of, page, remove_from_response, with_keys
from server.store.kinds import RUNNING, Item, Page, PageRequest, Response, Status, StoredEvent
from server.store.schema import conversations, events, items, responses, runners

_DELETED = "deleted"
"""The state of a response that was deleted while others still go on from it."""

RUNNER_SECONDS = 20.0
"""A server that was not seen for this long is gone, and so are the responses it was making."""


class Responses:
    """The stored responses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, response_id: str, owner: str) -> Response | None:
        """The response, if it is there and ``owner``'s."""
        row = self._connection.execute(
            select(responses).where(
                responses.c.id == response_id,
                responses.c.owner == owner,
                responses.c.status != _DELETED,
            )
        ).one_or_none()
        if row is None:
            return None
        return Response(
            id=row.id,
            owner=row.owner,
            created_at=row.created_at,
            status=row.status,
            body=bytes(row.body),
            previous_id=row.previous_id,
            conversation_id=row.conversation_id,
            runner=row.runner,
        )

    def save(self, response: Response, inputs: Iterable[Item], outputs: Iterable[Item]) -> None:
        """Store a response with its items; they are appended to its conversation if it is over.

        A response that it goes on from, and its conversation, may have been removed meanwhile.
        """
        over = response.status not in RUNNING
        conversation_id = response.conversation_id if over else None
        if conversation_id is not None:
            found = self._connection.execute(
                update(conversations)
                .where(conversations.c.id == conversation_id)
                .values(used_at=int(time.time()))
            )
            conversation_id = conversation_id if found.rowcount else None
        remove_from_response(self._connection, items.c.response_id == response.id)
        append = partial(
            add_items,
            self._connection,
            owner=response.owner,
            response_id=response.id,
            conversation_id=conversation_id,
        )
        append(inputs, direction="input")
        append(outputs, direction="output")
        self._connection.execute(delete(responses).where(responses.c.id == response.id))
        fields = msgspec.structs.asdict(response)
        self._connection.execute(
            insert(responses).values(
                **fields,
                used_at=int(time.time()),
                root_id=self._root_of(response.previous_id) or response.id,
                bytes=len(response.body) + self._event_bytes(response.id),
            )
        )

    def finish(self, response: Response, inputs: Iterable[Item], outputs: Iterable[Item]) -> bool:
        """As `save`, for a response that runs; False if it was ended or deleted meanwhile."""
        running = self._connection.execute(
            select(responses.c.id)
            .where(responses.c.id == response.id, responses.c.status.in_(RUNNING))
            .with_for_update()
        ).one_or_none()
        if running is None:
            return False
        self.save(response, inputs, outputs)
        return True

    def set_running(self, response_id: str, status: Status, body: bytes) -> None:
        """Say that a response that is running has come to ``status``."""
        self._connection.execute(
            update(responses)
            .where(responses.c.id == response_id, responses.c.status.in_(RUNNING))
            .values(status=status, body=body)
        )

    def delete(self, response_id: str, owner: str) -> bool:
        """Remove the response; False if it is not there.

        Where others go on from it, its items stay until these are gone as well.
        """
        found = self.get(response_id, owner)
        if found is None:
            return False
        self._connection.execute(delete(events).where(events.c.response_id == response_id))
        if self._has_followers(response_id):
            self._connection.execute(
                update(responses)
                .where(responses.c.id == response_id)
                .values(status=_DELETED, body=b"", bytes=0)
            )
            return True
        gone: str | None = response_id
        while gone is not None:
            before = self._deleted_before(gone)
            remove_from_response(self._connection, items.c.response_id == gone)
            self._connection.execute(delete(responses).where(responses.c.id == gone))
            gone = before if before is not None and not self._has_followers(before) else None
        return True

    # --- items ---

    def outputs(self, response_id: str) -> list[Item]:
        """The items of the response's output."""
        rows = self._connection.execute(
            select(items.c.id, items.c.body, items.c.tokens)
            .where(items.c.response_id == response_id, items.c.direction == "output")
            .order_by(items.c.key)
        )
        return [item_of(row) for row in rows]

    def inputs(self, response_id: str) -> list[Item]:
        """The items that the response's own request brought."""
        rows = self._connection.execute(
            select(items.c.id, items.c.body, items.c.tokens)
            .where(items.c.response_id == response_id, items.c.direction == "input")
            .order_by(items.c.key)
        )
        return [item_of(row) for row in rows]

    def context(self, response_id: str) -> list[Item]:
        """The items that a response which goes on from this one begins with, oldest first."""
        keys = [key for key, _ in self._chain_items(response_id)]
        return with_keys(self._connection, keys)

    def input_page(self, response_id: str, asked: PageRequest) -> Page:
        """Some of the items that the response was made from; raises UnknownCursor."""
        outputs = select(items.c.key).where(
            items.c.response_id == response_id, items.c.direction == "output"
        )
        own = set(self._connection.execute(outputs).scalars())
        listed = [(key, name) for key, name in self._chain_items(response_id) if key not in own]
        return page(self._connection, listed, asked)

    def find_items(self, ids: Sequence[str], owner: str) -> dict[str, Item]:
        """The newest item of each of ``ids`` that is there and ``owner``'s."""
        found = {}
        for name in ids:
            row = self._connection.execute(
                select(items.c.id, items.c.body, items.c.tokens)
                .where(items.c.id == name, items.c.owner == owner)
                .order_by(items.c.key.desc())
                .limit(1)
            ).one_or_none()
            if row is not None:
                found[name] = item_of(row)
        return found

    def _chain_items(self, response_id: str) -> list[tuple[int, str]]:
        """Keys and ids of all items up to the end of the response, oldest first."""
        first = (
            select(
                responses.c.id,
                responses.c.previous_id,
                responses.c.conversation_id,
                literal(0).label("depth"),
            )
            .where(responses.c.id == response_id)
            .cte("chain", recursive=True)
        )
        chain = first.union_all(
            select(
                responses.c.id,
                responses.c.previous_id,
                responses.c.conversation_id,
                (first.c.depth + 1).label("depth"),
            ).where(responses.c.id == first.c.previous_id)
        )
        found = self._connection.execute(
            select(items.c.key, items.c.id)
            .join(chain, items.c.response_id == chain.c.id)
            .order_by(chain.c.depth.desc(), items.c.key)
        )
        keys = [(row.key, row.id) for row in found]
        oldest = self._connection.execute(
            select(chain.c.conversation_id).order_by(chain.c.depth.desc()).limit(1)
        ).scalar()
        if oldest is None:
            return keys
        before = self._pairs(
            select(items.c.key, items.c.id).where(
                items.c.conversation_id == oldest, items.c.key < min(keys, default=(0, ""))[0]
            )
        )
        return [*before, *keys]

    def _pairs(self, statement: Select[tuple[int, str]]) -> list[tuple[int, str]]:
        rows = self._connection.execute(statement.order_by(items.c.key))
        return [(row.key, row.id) for row in rows]

    # --- events ---

    def add_events(self, response_id: str, added: Sequence[StoredEvent]) -> None:
        """Append events of the response's stream."""
        if not added:
            return
        rows = [{"response_id": response_id, **msgspec.structs.asdict(event)} for event in added]
        self._connection.execute(insert(events), rows)

    def events_after(self, response_id: str, sequence: int) -> list[StoredEvent]:
        """The events of the response's stream after number ``sequence``."""
        rows = self._connection.execute(
            select(events.c.sequence, events.c.type, events.c.body)
            .where(events.c.response_id == response_id, events.c.sequence > sequence)
            .order_by(events.c.sequence)
        )
        return [StoredEvent(row.sequence, row.type, bytes(row.body)) for row in rows]

    # --- servers that make responses in the background ---

    def see_runner(self, runner: str) -> None:
        """Note that the server ``runner`` is there."""
        seen = {"seen_at": time.time()}
        found = self._connection.execute(update(runners).where(runners.c.id == runner).values(seen))
        if not found.rowcount:
            self._connection.execute(insert(runners).values(id=runner, **seen))

    def forget_runner(self, runner: str) -> None:
        """Note that the server ``runner`` makes no responses any more."""
        self._connection.execute(delete(runners).where(runners.c.id == runner))

    def runner_is_gone(self, runner: str) -> bool:
        """Whether the server ``runner`` was not seen for `RUNNER_SECONDS`."""
        seen = self._connection.execute(
            select(runners.c.seen_at).where(runners.c.id == runner)
        ).scalar()
        return seen is None or seen < time.time() - RUNNER_SECONDS

    # --- chains ---

    def _root_of(self, response_id: str | None) -> str | None:
        if response_id is None:
            return None
        found = select(responses.c.root_id).where(responses.c.id == response_id)
        return self._connection.execute(found).scalar()

    def _has_followers(self, response_id: str) -> bool:
        followers = exists().where(responses.c.previous_id == response_id)
        return bool(self._connection.execute(select(followers)).scalar())

    def _deleted_before(self, response_id: str) -> str | None:
        """The response that this one goes on from, if that was deleted before."""
        own = select(responses.c.previous_id).where(responses.c.id == response_id)
        before = select(responses.c.id).where(
            responses.c.id == own.scalar_subquery(), responses.c.status == _DELETED
        )
        return self._connection.execute(before).scalar()

    def _event_bytes(self, response_id: str) -> int:
        size = select(func.coalesce(func.sum(func.length(events.c.body)), 0))
        return int(
            self._connection.execute(size.where(events.c.response_id == response_id)).scalar_one()
        )

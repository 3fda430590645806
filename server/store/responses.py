"""Responses: chains of them, their items, and the events of those made in the background."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Connection, Select, delete, exists, literal, select, update

from server.store.conflicts import insert_into
from server.store.event_log import EventLog
from server.store.items import add_items, item_of, page, remove_from_response, with_keys
from server.store.kinds import (
    RUNNING,
    Item,
    Page,
    PageRequest,
    Response,
    Status,
    StoredEvent,
)
from server.store.schema import conversations, items, responses

_DELETED = "deleted"
"""The state of a response that was deleted while others still go on from it, or given up."""


class Responses:
    """The stored responses; ``added`` counts the bytes that were stored."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._events = EventLog(connection)
        self.added = 0

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
        """Store a new response with its items, which are appended to its conversation at the end.

        Those of a response that failed are not.

        A response that it goes on from, and its conversation, may have been removed meanwhile.
        Nothing is stored of a response that was given up.
        """
        stored = self._connection.execute(
            insert_into(self._connection, responses)
            .values(
                **msgspec.structs.asdict(response),
                used_at=int(time.time()),
                root_id=self._root_of(response.previous_id) or response.id,
                bytes=len(response.body),
            )
            .on_conflict_do_nothing(),
            execution_options={"preserve_rowcount": True},
        )
        if not stored.rowcount:
            return
        over = response.status not in {*RUNNING, "failed"}
        self.added += len(response.body) + add_items(
            self._connection,
            inputs=inputs,
            outputs=outputs,
            owner=response.owner,
            response_id=response.id,
            conversation_id=self._used(response.conversation_id) if over else None,
        )

    def finish(
        self,
        response: Response,
        inputs: Iterable[Item],
        outputs: Iterable[Item],
        last: Sequence[StoredEvent] = (),
    ) -> bool:
        """As `save`, for a response that runs, with its ``last`` events.

        Nothing is stored, and the answer is False, if it was ended or deleted meanwhile.
        """
        if not self.is_running(response.id):
            return False
        self.added += self._events.add(response.id, last)
        this = responses.c.id == response.id
        remove_from_response(self._connection, items.c.response_id == response.id)
        self._connection.execute(delete(responses).where(this))
        self.save(response, inputs, outputs)
        size = len(response.body) + self._events.bytes(response.id)
        self._connection.execute(update(responses).where(this).values(bytes=size))
        return True

    def give_up(self, response_id: str, owner: str) -> None:
        """Have nothing stored of a response that no client knows, neither now nor later.

        Its items leave its conversation, too.
        """
        times = dict.fromkeys(("created_at", "used_at"), int(time.time()))
        gone = {"status": _DELETED, "body": b"", "bytes": 0}
        self._connection.execute(
            insert_into(self._connection, responses)
            .values(id=response_id, owner=owner, root_id=response_id, **times, **gone)
            .on_conflict_do_update(
                index_elements=[responses.c.id], set_=gone, where=responses.c.owner == owner
            )
        )
        self._connection.execute(
            delete(items).where(items.c.response_id == response_id, items.c.owner == owner)
        )

    def is_running(self, response_id: str) -> bool:
        """Whether the response is still being made; it stays so until the transaction ends."""
        running = self._connection.execute(
            select(responses.c.id)
            .where(responses.c.id == response_id, responses.c.status.in_(RUNNING))
            .with_for_update()
        )
        return running.one_or_none() is not None

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
        self._events.remove(response_id)
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
            select(items.c.id, items.c.body)
            .where(items.c.response_id == response_id, items.c.direction == "output")
            .order_by(items.c.key)
        )
        return [item_of(row) for row in rows]

    def inputs(self, response_id: str) -> list[Item]:
        """The items that the response's own request brought."""
        rows = self._connection.execute(
            select(items.c.id, items.c.body)
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
                select(items.c.id, items.c.body)
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

    # --- chains and conversations ---

    def _used(self, conversation_id: str | None) -> str | None:
        """Note that the conversation is used; None if it is there no longer."""
        if conversation_id is None:
            return None
        found = self._connection.execute(
            update(conversations)
            .where(conversations.c.id == conversation_id)
            .values(used_at=int(time.time()))
        )
        return conversation_id if found.rowcount else None

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

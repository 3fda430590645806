"""Items: written once, and listed in pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from server.store.kinds import Direction, Item, Page, PageRequest, UnknownCursor
from server.store.schema import items

_MOST_PARAMETERS = 500
"""Keys in one statement; SQLite took at most 999 before version 3.32."""


def add_items(
    connection: Connection,
    *,
    inputs: Iterable[Item] = (),
    outputs: Iterable[Item] = (),
    owner: str,
    response_id: str | None = None,
    conversation_id: str | None = None,
) -> int:
    """Append items to a response, to a conversation, or to both; returns their bytes."""
    directed: list[tuple[Direction, Item]] = [("input", item) for item in inputs]
    directed += [("output", item) for item in outputs]
    rows: list[dict[str, Any]] = [
        {
            "id": item.id,
            "owner": owner,
            "response_id": response_id,
            "direction": direction,
            "conversation_id": conversation_id,
            "bytes": len(item.body),
            "body": item.body,
        }
        for direction, item in directed
    ]
    if rows:
        connection.execute(insert(items), rows)
    return sum(row["bytes"] for row in rows)


def remove_from_response(connection: Connection, of_these: ColumnElement[bool]) -> None:
    """Remove items from their responses; those that a conversation has stay there."""
    connection.execute(delete(items).where(of_these, items.c.conversation_id.is_(None)))
    connection.execute(update(items).where(of_these).values(response_id=None))


def remove_from_conversation(connection: Connection, of_these: ColumnElement[bool]) -> None:
    """Remove items from their conversation; those that a response has stay there."""
    connection.execute(delete(items).where(of_these, items.c.response_id.is_(None)))
    connection.execute(update(items).where(of_these).values(conversation_id=None))


def with_keys(connection: Connection, keys: Sequence[int]) -> list[Item]:
    """The items of ``keys``, in this order."""
    found: dict[int, Item] = {}
    for first in range(0, len(keys), _MOST_PARAMETERS):
        chunk = keys[first : first + _MOST_PARAMETERS]
        rows = connection.execute(
            select(items.c.key, items.c.id, items.c.body).where(items.c.key.in_(chunk))
        )
        found |= {row.key: item_of(row) for row in rows}
    return [found[key] for key in keys]


def item_of(row: Any) -> Item:
    """The item in a row with its id and body."""
    return Item(id=row.id, body=bytes(row.body))


def page(connection: Connection, listed: Sequence[tuple[int, str]], asked: PageRequest) -> Page:
    """Some of the items ``listed`` by key and id, oldest first.

    Raises UnknownCursor if the page should begin after an item that is not among them.
    """
    ordered = listed if asked.order == "asc" else listed[::-1]
    first = 0
    if asked.after is not None:
        places = (place for place, (_, name) in enumerate(ordered) if name == asked.after)
        first = next(places, -1) + 1
        if not first:
            raise UnknownCursor(asked.after)
    chosen = ordered[first : first + asked.limit]
    more = len(ordered) > first + len(chosen)
    return Page(with_keys(connection, [key for key, _ in chosen]), more)

"""Pages of tables whose rows have a key, an id and an owner."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, select

from server.store.kinds import PageRequest, UnknownCursor


def listed(
    connection: Connection, table: Table, asked: PageRequest, *where: ColumnElement[bool]
) -> tuple[list[Any], bool]:
    """Rows of ``table`` in the order in which they were added, and whether others follow.

    Raises UnknownCursor if the page should begin after a row that is not among them.
    """
    key, statement = table.c.key, select(table).where(*where)
    if asked.after is not None:
        cursor = select(key).where(table.c.id == asked.after, *where)
        place = connection.execute(cursor).scalar()
        if place is None:
            raise UnknownCursor(asked.after)
        statement = statement.where(key > place if asked.order == "asc" else key < place)
    order = key.asc() if asked.order == "asc" else key.desc()
    rows = connection.execute(statement.order_by(order).limit(asked.limit + 1)).all()
    return list(rows[: asked.limit]), len(rows) > asked.limit

"""Files: what is known about them. Their contents lie in a folder (`file_folder`)."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, or_, select

from server.store.kinds import FilePage, PageRequest, StoredFile
from server.store.listing import listed
from server.store.schema import files


class StoredFiles:
    """The stored files; one that has expired is there no longer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, file: StoredFile) -> None:
        """Store a new file."""
        self._connection.execute(insert(files).values(**msgspec.structs.asdict(file)))

    def get(self, file_id: str, owner: str) -> StoredFile | None:
        """The file, if it is there and ``owner``'s."""
        found = select(files).where(files.c.id == file_id, files.c.owner == owner, _current())
        row = self._connection.execute(found).one_or_none()
        return None if row is None else _file(row)

    def page(self, owner: str, asked: PageRequest, purpose: str | None = None) -> FilePage:
        """Some of ``owner``'s files, of one ``purpose`` or of all; raises UnknownCursor."""
        where = [files.c.owner == owner, _current()]
        if purpose is not None:
            where.append(files.c.purpose == purpose)
        rows, more = listed(self._connection, files, asked, *where)
        return FilePage([_file(row) for row in rows], more)

    def delete(self, file_id: str) -> None:
        """Remove the file, if it is there."""
        self._connection.execute(delete(files).where(files.c.id == file_id))

    def bytes(self) -> int:
        """The bytes of all contents."""
        total = select(func.coalesce(func.sum(files.c.bytes), 0))
        return int(self._connection.execute(total).scalar_one())

    def expired(self) -> list[str]:
        """The ids of files that have expired and are still stored."""
        rows = self._connection.execute(select(files.c.id).where(~_current()))
        return list(rows.scalars())

    def ids(self) -> set[str]:
        """The ids of all files."""
        return set(self._connection.execute(select(files.c.id)).scalars())


def _current() -> Any:
    return or_(files.c.expires_at.is_(None), files.c.expires_at > int(time.time()))


def _file(row: Any) -> StoredFile:
    return StoredFile(
        id=row.id,
        owner=row.owner,
        created_at=row.created_at,
        expires_at=row.expires_at,
        bytes=row.bytes,
        purpose=row.purpose,
        filename=row.filename,
    )

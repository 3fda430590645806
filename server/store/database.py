"""Opening the database: its file or its server, and its schema."""

from __future__ import annotations

import logging
import os
import secrets as random
import sqlite3
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from server.core.errors import StoreUnavailable
from server.store.schema import VERSION, create, migrate, schema_version, secrets

_logger = logging.getLogger(__name__)

_BUSY_SECONDS = 5.0
"""How long a transaction waits for one of another process. A choice: writes take milliseconds."""
_LOG_BYTES = 4 << 20
"""What SQLite's log is cut to when it begins anew; a choice."""
_ADVISORY_LOCK = 0x6472_6167_6F6D_616E
"""Held on PostgreSQL while the schema is brought up to date: the letters of the project's name."""
_creating = threading.Lock()
_IMMEDIATE = "dragoman_immediate"


class Database:
    """An open database, whose schema is the newest.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://…``.

    Raises what the driver raises, and StoreUnavailable for a schema that is newer than this code.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.file = Path(parsed.database or "") if _is_sqlite(parsed) else None
        if self.file is not None:
            _prepare_file(self.file)
            self.engine = self._reading = _sqlite_engine(parsed)
        else:
            self.engine = create_engine(parsed.set(drivername="postgresql+psycopg"))
            # As in SQLite: what one statement lists, the next one finds.
            self._reading = self.engine.execution_options(isolation_level="REPEATABLE READ")
        self._checkpointing = threading.Lock()
        self._writing = self.engine.execution_options(**{_IMMEDIATE: True})
        try:
            with self.writing() as connection:
                _migrate(connection)
                self.secret = _secret(connection)
            self._identity = self._file_identity()
        except BaseException:
            self.engine.dispose()
            raise

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that only reads, and sees one moment."""
        return self._reading.begin()

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that writes; SQLite has one at a time, which others wait for."""
        return self._writing.begin()

    @property
    def vanished(self) -> bool:
        """Whether the file was removed or replaced since it was opened."""
        return self._identity != self._file_identity()

    def reclaim(self) -> None:
        """Give the space of removed records back to the file system; PostgreSQL does so itself."""
        if self.file is None:
            return
        with self.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None, "it is connected"
            # Each step of the statement frees one page, and `execute` takes only one step.
            driver.executescript("PRAGMA incremental_vacuum")

    @property
    def log_bytes(self) -> int:
        """The size of SQLite's log, which is to be moved into its file."""
        if self.file is None:
            return 0
        try:
            return self.file.with_name(f"{self.file.name}-wal").stat().st_size
        except OSError:
            return 0

    def checkpoint(self) -> None:
        """Move SQLite's log into its file, which waits for the disk; writing goes on meanwhile.

        The log begins anew unless that wrote to it; PostgreSQL does all this itself.
        """
        if self.file is None:
            return
        try:
            with self._checkpointing, self.engine.connect() as connection:
                driver = connection.connection.driver_connection
                assert driver is not None, "it is connected"
                driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except (sqlite3.Error, SQLAlchemyError) as error:
            _logger.warning("the store's log stays as it is: %s", error)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _file_identity(self) -> tuple[int, int] | None:
        if self.file is None:
            return None
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _is_sqlite(url: URL) -> bool:
    return url.drivername == "sqlite"


def _prepare_file(file: Path) -> None:
    """Make the folder and the file, for their owner only; SQLite's other files copy its mode."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A file that is there is left alone: closing it would end the locks this process has on it.
    with _creating, suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have the file written with a log, which stays so.

    Of several that open a new file at once, SQLite lets one change this and refuses the others
    without waiting ("database is locked"), so they try again.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    # Setting it again would wait for those who write.
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        # The driver would begin transactions by itself, and only before writing.
        connection.isolation_level = None
        _write_ahead(connection)
        # A commit survives the death of this process; the last ones may not survive the machine's.
        # The file is whole in both cases.
        connection.execute("PRAGMA synchronous=NORMAL")
        # One commit in a hundred would wait for the disk (`Database.checkpoint`).
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        immediate = connection.get_execution_options().get(_IMMEDIATE, False)
        # A transaction that reads first and then writes would fail if another wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _migrate(connection: Connection) -> None:
    """Bring the schema up to date; of several servers that begin at once, one does."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    version = 0
    if inspect(connection).has_table(schema_version.name):
        version = connection.execute(select(schema_version.c.version)).scalar_one()
    if version > VERSION:
        raise StoreUnavailable(
            f"The store was written by a newer dragoman: it has version {version} of the schema, "
            f"and this one knows version {VERSION}."
        )
    if version == 0:
        create(connection)
    elif version < VERSION:
        migrate(connection, version)


def _secret(connection: Connection) -> bytes:
    """The key of the hashes that say whose a record is; made with the database."""
    name = "owner"
    found = connection.execute(select(secrets.c.value).where(secrets.c.name == name)).scalar()
    if found is not None:
        return bytes(found)
    made = random.token_bytes(32)
    connection.execute(insert(secrets).values(name=name, value=made))
    return made

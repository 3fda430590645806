"""The store as the event loop sees it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from server.core.errors import StoreUnavailable
from server.store.kinds import Limits, Swept

if TYPE_CHECKING:
    from server.store.database import Database
    from server.store.records import Records

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_READERS = 4
_SWEEP_SECONDS = 600.0
_SWEEP_SHARE = 64
"""A sweep is due after the share 1/64 of the bound was written, or after ten minutes."""
_CHECKPOINT_BYTES = 4 << 20
_TRANSACTION_BYTES = 56 << 10
"""A checkpoint is due after 4 MiB, SQLite's own measure. Beside bodies, storing a response writes
14 pages of 4 KiB."""
_MOST_LOG_BYTES = 64 << 20
"""Where writing never rests, SQLite's log grows to this; then writing waits. A choice."""


class Store:
    """Runs transactions, each on a thread of the store's own; one thread does all that write.

    Nothing is opened before the first transaction. When the database's file vanishes, a new one is
    begun.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://…``; None switches the store off.
        limits: The most that is kept.
    """

    def __init__(self, url: str | None, limits: Limits) -> None:
        self.enabled = url is not None
        self.failing = False
        self._url = url or ""
        self._limits = limits
        self._database: Database | None = None
        self._opening = threading.Lock()
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(_READERS, "store-reader")
        self._checkpointer = ThreadPoolExecutor(1, "store-checkpoint")
        self._in_log = 0
        self._written = 0
        self._swept_at = float("-inf")

    def prepare(self) -> None:
        """Begin to open the database, so that the first answer does not wait for it at its end."""
        if self.enabled and self._database is None:
            self._readers.submit(self._open)

    async def read(self, work: Callable[[Records], T]) -> T:
        """The result of ``work`` in a transaction that only reads; raises StoreUnavailable."""
        return await self._run(self._readers, lambda: self.transact(work, writes=False))

    async def write(self, work: Callable[[Records], T]) -> T:
        """The result of ``work`` in a transaction that may write.

        When this returns, what was written survives the death of the process. Raises
        StoreUnavailable, and then nothing was written.
        """
        result = await self._run(self._writer, lambda: self.transact(work, writes=True))
        self._sweep_if_due()
        return result

    def transact(self, work: Callable[[Records], T], *, writes: bool) -> T:
        """As `read` and `write`, for programs without an event loop: blocks."""
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - as in `_open`

        from server.store.records import Records  # noqa: PLC0415

        database = self._open()
        try:
            with database.writing() if writes else database.reading() as connection:
                records = Records(connection)
                result = work(records)
        except (SQLAlchemyError, OSError) as error:
            raise self._failed(error) from error
        self._recovered()
        self._written += records.added
        if writes:
            self._checkpoint_if_due(database, records.added)
        return result

    async def owner(self, key_digest: str) -> str:
        """Whose the records of an API key are: a hash of its digest with this store's secret.

        Without API keys, ``key_digest`` is empty and so is the owner.
        """
        if not key_digest:
            return ""
        database = self._database
        if database is None:
            database = await self._run(self._readers, self._open)
        return hmac.new(database.secret, key_digest.encode(), hashlib.sha256).hexdigest()

    def identity(self) -> str:
        """A name of the database, the same for all that open it, for folders that belong to it.

        Blocks. Raises StoreUnavailable.
        """
        return hmac.new(self._open().secret, b"identity", hashlib.sha256).hexdigest()[:16]

    async def close(self) -> None:
        """Wait for the transactions that run, and close the database."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """As `close`, for programs without an event loop."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._checkpointer.shutdown()
        if self._database is not None:
            self._database.close()
            self._database = None

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        # Where the awaiting task is cancelled, a transaction that has begun still runs to its end.
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _open(self) -> Database:
        """The database, opened if need be; on a thread of the store's."""
        # It takes a fifth of a second, which a server's start should not wait for.
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        from server.store.database import Database  # noqa: PLC0415

        with self._opening:
            if self._database is not None and self._database.vanished:
                _logger.warning("the store's file has vanished: a new one is begun")
                self._database.close()
                self._database = None
            if self._database is None:
                try:
                    self._database = Database(self._url)
                except (SQLAlchemyError, OSError) as error:
                    raise self._failed(error) from error
            database: Database = self._database
            return database

    def _failed(self, error: Exception) -> StoreUnavailable:
        reason = str(getattr(error, "orig", None) or error).strip()
        if not self.failing:
            _logger.warning("the store fails: %s", reason)
        self.failing = True
        return StoreUnavailable("What is stored cannot be reached now; the server's log says why.")

    def _recovered(self) -> None:
        if self.failing:
            _logger.info("the store works again")
        self.failing = False

    def _checkpoint_if_due(self, database: Database, written: int) -> None:
        self._in_log += written + _TRANSACTION_BYTES
        if database.log_bytes > _MOST_LOG_BYTES:
            database.checkpoint()
        elif self._in_log > _CHECKPOINT_BYTES:
            self._in_log = 0
            self._checkpointer.submit(database.checkpoint)

    def _sweep_if_due(self) -> None:
        due = self._written * _SWEEP_SHARE > self._limits.bytes
        if not due and time.monotonic() - self._swept_at < _SWEEP_SECONDS:
            return
        self._checkpointer = ThreadPoolExecutor(1, "store-checkpoint")
        self._in_log = 0
        self._written = 0
        self._swept_at = time.monotonic()
        self._writer.submit(self._sweep)

    def sweep(self) -> Swept:
        """Remove what is too old or too much; blocks. Raises StoreUnavailable."""
        swept = self.transact(lambda records: records.upkeep.sweep(self._limits), writes=True)
        if swept.chains or swept.conversations:
            self._open().reclaim()
        return swept

    def _sweep(self) -> None:
        try:
            swept = self.sweep()
        except StoreUnavailable:
            return  # it is in the log
        if swept.chains or swept.conversations:
            _logger.info(
                "removed %d chains of responses and %d conversations from the store: %d bytes",
                swept.chains,
                swept.conversations,
                swept.bytes,
            )

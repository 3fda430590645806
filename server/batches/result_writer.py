"""Writes the results of a batch as they come, many with one sync."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from server.batches.result_files import Result, ResultFiles
from server.core.errors import StoreUnavailable

_logger = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0
"""How long to wait until a disk that is full is tried again. A choice."""
_MOST_TOGETHER = 1_000


class ResultWriter:
    """Appends results to a batch's files.

    While the disk takes nothing, those who wait for their result to be written go on waiting, and
    so the batch pauses.

    Args:
        files: Where they go.
        written: Awaited after each write.
    """

    def __init__(
        self, files: ResultFiles, written: Callable[[ResultFiles], Awaitable[None]]
    ) -> None:
        self._files = files
        self._written = written
        self._waiting: list[tuple[Result, asyncio.Future[None]]] = []
        self._more = asyncio.Event()
        self._closed = False
        self._task = asyncio.create_task(self._run())

    async def write(self, result: Result) -> None:
        """Write one result; when this returns, it survives the death of the machine."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((result, done))
        self._more.set()
        await done

    async def write_all(self, results: Iterable[Result]) -> None:
        """Write many."""
        await asyncio.gather(*(self.write(each) for each in results))

    async def close(self) -> None:
        """Write what still waits, unless the disk takes nothing."""
        self._closed = True
        self._more.set()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            await self._write_all_that_comes()
        except Exception as error:
            for _, done in self._waiting:
                if not done.done():
                    done.set_exception(error)
            raise

    async def _write_all_that_comes(self) -> None:
        while not (self._closed and not self._waiting):
            await self._more.wait()
            if not self._waiting:
                self._more.clear()
                continue
            chosen = self._waiting[:_MOST_TOGETHER]
            if not await self._append([each for each, _ in chosen]):
                return
            del self._waiting[: len(chosen)]
            for _, done in chosen:
                if not done.done():
                    done.set_result(None)
            await self._written(self._files)

    async def _append(self, results: list[Result]) -> bool:
        """Append ``results``, however long it takes; False if this was closed meanwhile."""
        failing = False
        while True:
            try:
                await asyncio.to_thread(self._files.append, results)
            except StoreUnavailable as error:
                if self._closed:
                    return False
                if not failing:
                    _logger.warning("a batch pauses: %s", error.message)
                failing = True
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                if failing:
                    _logger.info("the batch goes on")
                return True

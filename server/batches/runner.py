"""Finds the batches that are to be worked on, and removes files whose time is over."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from filelock import BaseFileLock

from server.batches.batch_record import BatchRecord, batch_of
from server.batches.batch_run import BatchRun
from server.batches.shared import Shared
from server.core.errors import StoreUnavailable
from server.store.kinds import StoredBatch

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
"""How often to look for work that another server left."""
_MOST_RUNS = 8
"""The most batches that are open at once: each has three files open. A choice."""
_RETRY_SECONDS = 30.0
"""When to go on with a batch that could not go on."""
_SWEEP_SECONDS = 600.0
_STALE_SECONDS = 60.0
"""A mark is older than this before it counts as left behind: it is made before its record."""


class BatchRunner:
    """Works on all batches; nothing is opened before there is one."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._runs: dict[str, BatchRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pausing: dict[str, float] = {}
        self._unknown: dict[str, float] = {}
        self._more = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._swept_at = time.monotonic()

    def start(self) -> None:
        """Begin to look for work."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_again_and_again())

    async def begin(self, batch: BatchRecord) -> None:
        """Store a new batch and work on it; raises StoreUnavailable."""
        await asyncio.to_thread(self._shared.marks.add, batch.id)
        await self._shared.store.write(lambda records: records.batches.add(batch.stored()))
        self.start()
        self._more.set()

    def changed(self, batch_id: str) -> None:
        """A batch was cancelled: whoever works on it should look."""
        if batch_id in self._runs:
            self._runs[batch_id].wake()
        self._more.set()

    async def close(self) -> None:
        """Stop; what was not answered is asked again when a server starts."""
        tasks = [task for task in (self._looking, *self._tasks.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                await self._look()
                await self._sweep_if_due()
            except StoreUnavailable:
                pass  # it is in the log
            except Exception:
                _logger.exception("looking for batches failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._more.wait()
            self._more.clear()

    async def _look(self) -> None:
        """Take up batches that nobody works on."""
        if not self._shared.application.ready or not await asyncio.to_thread(
            self._shared.marks.any
        ):
            return
        marked = await asyncio.to_thread(self._shared.marks.names)
        if marked <= self._runs.keys():
            return
        stored = await self._shared.store.read(lambda records: records.batches.unfinished())
        await self._forget(marked - {each.id for each in stored})
        now = time.monotonic()
        for each in stored:
            if len(self._runs) >= _MOST_RUNS:
                return
            if each.id in self._runs or self._pausing.get(each.id, 0.0) > now:
                continue
            lock = await asyncio.to_thread(self._shared.marks.take, each.id)
            if lock is not None:
                self._begin(each, lock)

    def _begin(self, stored: StoredBatch, lock: BaseFileLock) -> None:
        batch = batch_of(stored)
        self._runs[batch.id] = run = BatchRun(self._shared, batch)
        self._tasks[batch.id] = asyncio.create_task(self._work(run, lock))

    async def _work(self, run: BatchRun, lock: BaseFileLock) -> None:
        name = run.batch.id
        try:
            if not await self._still_there(run) or await run.run():
                await asyncio.to_thread(self._shared.marks.remove, name)
                _logger.info("%s: %s", name, run.batch.status)
            else:
                self._pausing[name] = time.monotonic() + _RETRY_SECONDS
        except StoreUnavailable:
            self._pausing[name] = time.monotonic() + _RETRY_SECONDS
        except Exception:
            _logger.exception("%s cannot go on now", name)
            self._pausing[name] = time.monotonic() + _RETRY_SECONDS
        finally:
            lock.release(force=True)
            del self._runs[name], self._tasks[name]
            self._more.set()

    async def _still_there(self, run: BatchRun) -> bool:
        """Whether the batch is unfinished now that nobody else can work on it; reads it again."""
        stored = await self._shared.store.read(lambda records: records.batches.unfinished())
        found = next((batch_of(each) for each in stored if each.id == run.batch.id), None)
        if found is not None:
            run.batch = found
        return found is not None

    async def _forget(self, names: set[str]) -> None:
        """Remove marks that no batch belongs to."""
        now = time.monotonic()
        self._unknown = {name: self._unknown.get(name, now) for name in names}
        for name, since in self._unknown.items():
            if now - since > _STALE_SECONDS:
                await asyncio.to_thread(self._shared.marks.remove, name)

    async def _sweep_if_due(self) -> None:
        if time.monotonic() - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = time.monotonic()
        await self.sweep()

    async def sweep(self) -> None:
        """Remove files that have expired or that nothing names, and batches that ended long ago."""
        files, store = self._shared.files, self._shared.store
        if not await asyncio.to_thread(files.holds, "*"):
            return
        expired, known = await store.read(
            lambda records: (records.files.expired(), records.files.ids())
        )
        for name in expired:
            await asyncio.to_thread(files.remove, name)
            await store.write(lambda records, name=name: records.files.delete(name))  # type: ignore[misc]
        before = time.time() - self._shared.days * 86_400
        await store.write(lambda records: records.batches.remove_before(before))
        await asyncio.to_thread(files.remove_forgotten, known)

"""Worker processes for models that are to be loaded, one of them ahead of its model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextvars import Context

from server.worker.supervise.child import WorkerProcess
from server.worker.supervise.launch import WORKER_COMMAND, Launched

logger = logging.getLogger("dragoman.worker")

SPARE_BYTES = 64 << 20
"""Memory of a worker that has imported everything and has no model (measured: 43 MB, the pages that
it shares with other workers divided among them)."""

# After a spare worker died, or could not be created, there is none for so many seconds: memory may
# be short. A choice.
_REST_SECONDS = 60.0


class Workers:
    """Spawns workers, and keeps one in reserve while ``wants_spare`` is true.

    A worker takes half a second to import what it needs. A spare one has done that, and waits for
    the model that it is to load.
    """

    def __init__(
        self, command: Sequence[str] = WORKER_COMMAND, ahead: Launched | None = None
    ) -> None:
        """``command`` is what is spawned; ``ahead`` was spawned already, and is used first."""
        self._command = command
        self._ahead = ahead
        self._spare: WorkerProcess | None = None
        self.wants_spare = False
        self._rests_until = 0.0
        self._changing = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None

    @property
    def spare_pid(self) -> int | None:
        """The process id of the worker in reserve."""
        return None if self._spare is None else self._spare.pid

    async def take(self, log: logging.Logger) -> WorkerProcess:
        """The spare worker, or else a new one; what it prints goes to ``log``.

        In place of a spare one the next is created, which imports while this one loads its model.
        Raises OSError when no process can be created.
        """
        async with self._changing:
            spare, self._spare = self._spare, None
        if spare is None:
            return await self._spawn(log)
        self.prepare_spare()
        if not spare.running:
            await self._bury(spare)
            return await WorkerProcess.spawn(self._command, log)
        spare.log = log
        return spare

    def prepare_spare(self) -> None:
        """Begin to create a spare worker, if one is wanted and there is none."""
        # It logs for no request.
        self._next = asyncio.create_task(self._prepare_spare(), context=Context())

    async def settle(self) -> None:
        """Have a spare worker if one is wanted, and otherwise none."""
        await self._prepare_spare()
        async with self._changing:
            if not self.wants_spare and self._spare is not None:
                await self._spare.end(0.0)
                self._spare = None

    async def _prepare_spare(self) -> None:
        async with self._changing:
            if self._spare is not None and not self._spare.running:
                await self._bury(self._spare)
                self._spare = None
            rested = time.monotonic() >= self._rests_until
            if self._ahead or (self.wants_spare and self._spare is None and rested):
                try:
                    self._spare = await self._spawn(logger)
                except OSError as error:
                    self._rest(f"could not be created ({error})")

    async def _spawn(self, log: logging.Logger) -> WorkerProcess:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            process = await WorkerProcess.adopt(ahead, log)
            if process.running:
                return process
            await self._bury(process)
        return await WorkerProcess.spawn(self._command, log)

    async def _bury(self, process: WorkerProcess) -> None:
        self._rest(await process.end(0.0))

    def _rest(self, reason: str) -> None:
        logger.warning("the spare worker %s; there is none for a minute", reason)
        self._rests_until = time.monotonic() + _REST_SECONDS

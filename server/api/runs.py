"""Work that goes on without its client, and the stream that tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from functools import partial

from server.api.family import Frame
from server.core.ids import random_id
from server.core.process_name import process_name


class Run:
    """One piece of work.

    Attributes:
        frames: The frames of its stream so far.
        cancelled: Whether somebody asked it to end.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.cancelled = False
        self._over = False
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, frames: Iterable[Frame]) -> None:
        """Append ``frames``."""
        self.frames += frames
        self._wake()

    async def follow(self, first: int = 0) -> AsyncGenerator[Frame]:
        """The frames from number ``first`` on, as they come, until the work is over."""
        while True:
            more = self._more
            while first < len(self.frames):
                yield self.frames[first]
                first += 1
            if self._over:
                return
            if not more.is_set():
                await more.wait()

    def stop(self, *, asked: bool = True) -> None:
        """Cancel the work; ``asked`` says whether somebody wanted that."""
        self.cancelled |= asked
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until the work is over."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def begin(self, work: Awaitable[None], over: Callable[[], None]) -> None:
        """Do ``work``, then call ``over``."""

        async def working() -> None:
            try:
                await work
            finally:
                over()
                self._over = True
                self._wake()

        self._task = asyncio.create_task(working())

    def _wake(self) -> None:
        """Wake all that follow; each waits for the next event from then on."""
        self._more.set()
        self._more = asyncio.Event()


class Runs:
    """All work that goes on without its client; ``runner`` names this server among others."""

    def __init__(self) -> None:
        self.runner = f"run_{random_id(24)}_{process_name()}"
        self._runs: dict[str, Run] = {}

    def begin(self, name: str, work: Callable[[Run], Awaitable[None]]) -> Run:
        """Do ``work`` under ``name``, until it returns."""
        run = self._runs[name] = Run()
        run.begin(work(run), partial(self._runs.__delitem__, name))
        return run

    def get(self, name: str) -> Run | None:
        """The work of this name, while it is done here."""
        return self._runs.get(name)

    async def close(self) -> None:
        """Cancel what still runs, and wait for its end."""
        for run in list(self._runs.values()):
            run.stop(asked=False)
            await run.ended()

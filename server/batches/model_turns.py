"""Which batches run beside each other: those that ask the same model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ModelTurns:
    """Lets work for one model go on at a time, in order of arrival.

    Batches of two models that do not fit into memory together would have them loaded in turns, line
    by line.
    """

    def __init__(self) -> None:
        self._model: str | None = None
        self._running = 0
        self._waiting: deque[tuple[str | None, asyncio.Event]] = deque()

    @asynccontextmanager
    async def turn(self, model: str | None) -> AsyncIterator[None]:
        """Wait until work for ``model`` may go on, and let others go on afterwards."""
        if self._running and (self._waiting or model != self._model):
            ticket = model, asyncio.Event()
            self._waiting.append(ticket)
            try:
                await ticket[1].wait()
            except asyncio.CancelledError:
                if ticket[1].is_set():
                    self._leave()
                else:
                    self._waiting.remove(ticket)
                raise
        else:
            self._model = model
            self._running += 1
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._running -= 1
        if self._running or not self._waiting:
            return
        self._model = self._waiting[0][0]
        for ticket in [each for each in self._waiting if each[0] == self._model]:
            self._waiting.remove(ticket)
            self._running += 1
            ticket[1].set()

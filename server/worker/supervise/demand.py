"""Who gets memory first where several models want it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from server.core.precedence import gives_way
from server.worker.supervise.slot import Slot

# The pause between two looks whether others still wait.
_POLL_SECONDS = 0.05
# A model that was used so lately is not unloaded for a request that gives way; a choice. People who
# talk to it would wait for it again and again.
_LATELY_SECONDS = 60.0


class Demand:
    """Requests that wait for memory; those that give way let all others have it first."""

    def __init__(self) -> None:
        self._waiting = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count one more that waits, unless it gives way."""
        counts = not gives_way.get()
        self._waiting += counts
        try:
            yield
        finally:
            self._waiting -= counts

    async def stand_back(self) -> None:
        """Where the task gives way, wait until no other waits for memory.

        So the model that it keeps busy becomes idle and can make room.
        """
        while gives_way.get() and self._waiting:  # noqa: ASYNC110 - as `_make_room` polls
            await asyncio.sleep(_POLL_SECONDS)

    def deadline(self, seconds: float) -> float:
        """Until when a model may wait for memory, by the monotonic clock.

        One that gives way does not wait at all, since others would have to wait behind it.
        """
        return time.monotonic() + (0 if gives_way.get() else seconds)

    def evictable(self, idle: Iterable[Slot]) -> list[Slot]:
        """Which of the ``idle`` models may be unloaded, least recently used first."""
        oldest = sorted(idle, key=lambda slot: slot.client.idle_since)
        if not gives_way.get():
            return oldest
        lately = time.monotonic() - _LATELY_SECONDS
        return [slot for slot in oldest if slot.client.idle_since < lately]

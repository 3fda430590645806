"""Reads segment files on a thread of its own, ahead of their use."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from server.engine.cache.segment import KeptSegment
from server.engine.disk.segment_file import Contents

# The engine waits this long for a file; then it computes, and asks for none for a while. Seconds;
# choices.
_LONGEST_WAIT = 1.0
_PAUSE = 60.0
# States that were read ahead take this many bytes at most; those not asked for in so many seconds
# make room for others. Choices.
_MOST_BYTES_AHEAD = 256 << 20
_LONGEST_AHEAD = 60.0


@dataclass(slots=True)
class _Reading:
    future: Future[Contents | None]
    size: int
    since: float


class SegmentReader:
    """Calls ``read`` for one segment after the other; all methods are for the engine's thread.

    ``too_slow`` is called when a file did not come in time.
    """

    def __init__(
        self, read: Callable[[KeptSegment], Contents | None], too_slow: Callable[[], None]
    ) -> None:
        self._read = read
        self._too_slow = too_slow
        self._thread = ThreadPoolExecutor(1, "prefix-reader")
        self._ahead: OrderedDict[str, _Reading] = OrderedDict()
        self._bytes_ahead = 0
        # The segment that `ready` said last is not, and when it said so first.
        self._awaited: tuple[str, float] | None = None
        self._paused_until = 0.0

    @property
    def paused(self) -> bool:
        """Whether no file is to be asked for, since one did not come in time."""
        return time.monotonic() < self._paused_until

    def read_ahead(self, segment: KeptSegment) -> bool:
        """Begin to read ``segment``; false if that takes more memory than there is for it."""
        now = time.monotonic()
        known = self._ahead.get(segment.name)
        if known is not None:  # what is asked for now must not make room for what follows it
            known.since = now
            self._ahead.move_to_end(segment.name)
            return True
        while self._ahead and now - next(iter(self._ahead.values())).since > _LONGEST_AHEAD:
            self._take(next(iter(self._ahead))).future.cancel()
        if self._ahead and self._bytes_ahead + segment.size > _MOST_BYTES_AHEAD:
            return False
        self._begin(segment)
        return True

    def ready(self, segment: KeptSegment) -> bool:
        """Whether `wait` would not wait for ``segment``, which is read if it was not yet.

        So it is after a second in which no other was waited for: `wait` then says that it took too
        long.
        """
        reading = self._ahead.get(segment.name) or self._begin(segment)
        if reading.future.done():
            return True
        if self._awaited is None or self._awaited[0] != segment.name:
            self._awaited = segment.name, time.monotonic()
        return self._seconds_left(segment.name) == 0

    def stop_waiting(self) -> None:
        """Forget how long `ready` has been asked for a segment: nobody asks on."""
        self._awaited = None

    def wait(self, segment: KeptSegment) -> Contents | None:
        """What ``segment`` holds; None if it cannot be used, or not in time."""
        if segment.name not in self._ahead:
            self._begin(segment)
        seconds = self._seconds_left(segment.name)
        self._awaited = None
        try:
            return self._take(segment.name).future.result(seconds)
        except FutureTimeout:
            self._paused_until = time.monotonic() + _PAUSE
            self._too_slow()
            return None

    def forget(self) -> None:
        """Give back the memory of what was read ahead: nobody will ask for it."""
        while self._ahead:
            self._take(next(iter(self._ahead))).future.cancel()

    def close(self) -> None:
        """Read no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self, segment: KeptSegment) -> _Reading:
        if self._awaited is not None and self._awaited[0] == segment.name:
            self._awaited = None  # of a reading that was given up since
        future = self._thread.submit(self._read, segment)
        reading = self._ahead[segment.name] = _Reading(future, segment.size, time.monotonic())
        self._bytes_ahead += segment.size
        return reading

    def _take(self, name: str) -> _Reading:
        reading = self._ahead.pop(name)
        self._bytes_ahead -= reading.size
        return reading

    def _seconds_left(self, name: str) -> float:
        """How long the engine still waits for what is being read."""
        if self._awaited is None or self._awaited[0] != name:
            return _LONGEST_WAIT
        return max(0.0, self._awaited[1] + _LONGEST_WAIT - time.monotonic())

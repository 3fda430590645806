"""Writes segment files on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from server.engine.cache.segment import Segment

logger = logging.getLogger(__name__)

# States that wait to be written occupy memory; beyond this, further ones have to wait. A choice.
_MOST_UNWRITTEN_BYTES = 256 << 20
# After a fault nothing is written for so many seconds; a choice.
_PAUSE = 60.0


class SegmentWriter:
    """Calls ``write`` for one segment after the other, and other functions in between.

    ``say`` is called with what keeps files from being written.
    """

    def __init__(self, write: Callable[[str, Segment], None], say: Callable[[str], None]) -> None:
        self._write = write
        self._say = say
        self._lock = threading.Lock()
        self._unwritten: dict[str, NDArray[np.uint8]] = {}
        self._thread = ThreadPoolExecutor(1, "prefix-writer")
        self._paused_until = 0.0

    def put(self, name: str, segment: Segment) -> bool:
        """Write ``segment``; false if that has to wait until others are written.

        After a fault, segments are dropped for a while.
        """
        with self._lock:
            if name in self._unwritten or time.monotonic() < self._paused_until:
                return True
            waiting = sum(state.nbytes for state in self._unwritten.values())
            if self._unwritten and waiting + segment.state.nbytes > _MOST_UNWRITTEN_BYTES:
                return False
            self._unwritten[name] = segment.state
        self.submit(self._write_one, name, segment)
        return True

    def holds(self, state: NDArray[np.uint8]) -> bool:
        """Whether ``state`` is still to be written."""
        with self._lock:
            return any(np.may_share_memory(state, other) for other in self._unwritten.values())

    def submit(self, work: Callable[..., None], *arguments: object) -> None:
        """Call ``work`` after what is being written; faults of the disk are said."""
        self._thread.submit(self._do, work, *arguments)

    def close(self, seconds: float) -> None:
        """Write what waits, for ``seconds`` at most."""
        try:
            self._thread.submit(lambda: None).result(max(seconds, 0))
        except FutureTimeout:
            logger.warning("Not all cached prefixes were written to disk in time.")
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _write_one(self, name: str, segment: Segment) -> None:
        try:
            with self._faults_said():
                if time.monotonic() >= self._paused_until:
                    self._write(name, segment)
        finally:
            with self._lock:
                del self._unwritten[name]

    def _do(self, work: Callable[..., None], *arguments: object) -> None:
        with self._faults_said():
            work(*arguments)

    @contextmanager
    def _faults_said(self) -> Iterator[None]:
        """Say what keeps the folder from being used, and write nothing for a while."""
        try:
            yield
        except OSError as error:
            self._say(f"Prefixes are not kept on disk: {error.strerror or error}.")
            self._paused_until = time.monotonic() + _PAUSE

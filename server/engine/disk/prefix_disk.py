"""Cached prefixes on disk, where they outlive the process.

Reading a prefix takes a small part of the time that computing it does, on any CPU: the state of a
token is read faster than the first layer is computed.

Several workers and servers may share the folder (`server.core.prefix_folder`): files appear whole,
by a rename, and may vanish at any time. What lies there is all there is to know: the index in
memory is made from it at the start, so no other record can contradict it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.core.prefix_folder import SUFFIX, DailyQuota, read_secret, sweep
from server.core.request import CacheScope
from server.engine.cache.segment import KeptSegment, Segment
from server.engine.disk.names import Names
from server.engine.disk.segment_file import (
    UnusableFile,
    read_header,
    read_state,
    write_segment,
)
from server.engine.disk.segment_index import SegmentIndex, place_of
from server.engine.spans import Keys

logger = logging.getLogger(__name__)

_SECRET_FILE = "secret"  # noqa: S105 - a name, no secret
# The engine waits this long for a file that is being read; then it computes. Seconds; a choice.
_LONGEST_WAIT = 1.0
# Files that are read ahead, for requests that may never come to use them; a choice.
_MOST_READ_AHEAD = 64
# States that wait to be written occupy memory; beyond this, further ones have to wait. A choice.
_MOST_UNWRITTEN_BYTES = 256 << 20
# Bytes written per day, as a multiple of the folder's size: a choice, so that a disk lasts.
_DAILY_SHARE = 8
_DAY = 24 * 3600.0
# Files unused for so long go, in seconds; a choice.
_MOST_AGE = 30 * _DAY
# After so many files the folder is looked through, since others write to it too; a choice.
_WRITES_PER_SWEEP = 16
# After a fault nothing is written for so many seconds; a choice.
_PAUSE = 60.0


@dataclass(slots=True)
class DiskCounters:
    """Files and bytes read and written, and files that could not be used.

    ``read_cells`` are those that a sequence got instead of computing them.
    """

    read: int = 0
    read_bytes: int = 0
    read_cells: int = 0
    written: int = 0
    written_bytes: int = 0
    unusable: int = 0


class PrefixDisk:
    """The segments of one model in ``folder``, whose files take ``most_bytes`` at most.

    ``fingerprint`` stands for everything besides keys that a state depends on. It is called on
    another thread, as it may take seconds; until it returns, and whenever the folder cannot be
    used, nothing is found and nothing kept.
    """

    def __init__(self, folder: Path, *, most_bytes: int, fingerprint: Callable[[], bytes]) -> None:
        self.counters = DiskCounters()
        self._folder = folder
        self._most_bytes = most_bytes
        self._fingerprint = b""
        self._names = Names(b"")
        self._lock = threading.Lock()
        self._index = SegmentIndex()
        self._ahead: OrderedDict[str, Future[NDArray[np.uint8] | None]] = OrderedDict()
        self._unwritten: dict[str, NDArray[np.uint8]] = {}
        self._quota = DailyQuota(_DAILY_SHARE * most_bytes)
        self._paused_until = 0.0
        self._said: set[str] = set()
        self._reader = ThreadPoolExecutor(1, "prefix-reader")
        self._writer = ThreadPoolExecutor(1, "prefix-writer")
        self._writer.submit(self._open, fingerprint)

    # --- from the engine's thread ---

    def find(self, scope: CacheScope, keys: Keys, length: int) -> tuple[KeptSegment, int] | None:
        """The segment that continues ``keys[:length]`` furthest, and up to which key."""
        with self._lock:
            return self._index.find(self._names.scope(scope), keys, length)

    def read_ahead(self, scope: CacheScope, keys: Keys, length: int) -> None:
        """Begin to read what continues ``keys[:length]``; `load` will ask for it soon."""
        while (found := self.find(scope, keys, length)) is not None:
            segment, length = found
            if segment.name not in self._ahead:
                self._ahead[segment.name] = self._reader.submit(self._read, segment, keys)
        while len(self._ahead) > _MOST_READ_AHEAD:
            self._ahead.popitem(last=False)[1].cancel()

    def load(self, segment: KeptSegment, keys: Keys) -> NDArray[np.uint8] | None:
        """The state of a segment that `find` returned for ``keys``; None if it cannot be used.

        What cannot be used is not found again.
        """
        reading = self._ahead.pop(segment.name, None)
        if reading is None:
            reading = self._reader.submit(self._read, segment, keys)
        try:
            state = reading.result(_LONGEST_WAIT)
        except FutureTimeout:
            self._say("Cached prefixes are computed again, as reading them takes too long.")
            state = None
        if state is None:
            with self._lock:
                self._index.remove(segment.name)
        else:
            self.counters.read_cells += len(segment.keys)
        return state

    def refuse(self, segment: KeptSegment) -> None:
        """Remove a file whose state llama.cpp did not take."""
        with self._lock:
            self._index.remove(segment.name)
        self._writer.submit(self._discard, segment.name, "llama.cpp does not take it")

    def keep(self, segment: Segment) -> bool:
        """Write ``segment`` in the background; false if that has to wait until others are written.

        Its state must not change while `holds` it.
        """
        if not self._fingerprint:
            return True
        name = self._names.segment(segment)
        with self._lock:
            if (
                name in self._index
                or name in self._unwritten
                or time.monotonic() < self._paused_until
            ):
                return True
            waiting = sum(state.nbytes for state in self._unwritten.values())
            if self._unwritten and waiting + segment.state.nbytes > _MOST_UNWRITTEN_BYTES:
                return False
            if not self._quota.take(segment.state.nbytes):
                self._say("No more prefixes are written to disk today.")
                return True
            self._unwritten[name] = segment.state
        self._writer.submit(self._write, name, segment)
        return True

    def holds(self, state: NDArray[np.uint8]) -> bool:
        """Whether ``state`` is still to be written."""
        with self._lock:
            return any(other.base is state.base for other in self._unwritten.values())

    def close(self, seconds: float) -> None:
        """Write what waits, for ``seconds`` at most."""
        written = self._writer.submit(lambda: None)
        try:
            written.result(max(seconds, 0))
        except FutureTimeout:
            logger.warning("Not all cached prefixes were written to disk in time.")
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False, cancel_futures=True)

    # --- on the threads that read and write ---

    def _open(self, fingerprint: Callable[[], bytes]) -> None:
        with self._faults_said():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._names = Names(read_secret(self._folder / _SECRET_FILE))
            found = fingerprint()
            own = self._folder / found.hex()
            own.mkdir(mode=0o700, exist_ok=True)
            for file in own.glob(f"*{SUFFIX}"):
                self._take_in(file, found)
            self._sweep()
            self._fingerprint = found

    def _take_in(self, path: Path, fingerprint: bytes) -> None:
        """Add a file that was there before to the index, or remove it if it cannot be used."""
        try:
            with FileIO(path) as file:
                header, keys, _ = read_header(file)
                status = os.fstat(file.fileno())
            if header.fingerprint != fingerprint:
                raise UnusableFile("it is of another model or setting")
        except UnusableFile as error:
            self._discard(path.stem, str(error), own=path.parent)
            return
        except FileNotFoundError:
            return
        self._add(path.stem, header.scope, keys, header.start, status.st_size)

    def _add(self, name: str, scope: bytes, keys: Keys, start: int, size: int) -> None:
        place = place_of(scope, keys, start)
        segment = KeptSegment(name, place, start, keys[start:].copy(), size)
        with self._lock:
            self._index.add(segment)

    def _read(self, segment: KeptSegment, keys: Keys) -> NDArray[np.uint8] | None:
        path = self._path(segment.name)
        try:
            with FileIO(path) as file:
                header, ids, state_at = read_header(file)
                fits = header.fingerprint == self._fingerprint and header.start == segment.start
                if not fits or header.scope != segment.place[0]:
                    raise UnusableFile("it is of another model, setting or key")
                if not np.array_equal(ids[segment.start :], segment.keys):
                    raise UnusableFile("it has other tokens than before")
                if not np.array_equal(ids[: segment.start], keys[: segment.start]):
                    return None  # another prompt with the same hash
                state = read_state(file, header, state_at)
            os.utime(path)
        except UnusableFile as error:
            self._discard(segment.name, str(error))
            return None
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._say(f"Cached prefixes cannot be read from disk: {error.strerror}.")
            return None
        self.counters.read += 1
        self.counters.read_bytes += state.nbytes
        return state

    def _write(self, name: str, segment: Segment) -> None:
        try:
            with self._faults_said():
                path = self._path(name)
                path.parent.mkdir(mode=0o700, exist_ok=True)
                size = write_segment(
                    path,
                    fingerprint=self._fingerprint,
                    scope=self._names.scope(segment.scope),
                    keys=segment.keys,
                    start=segment.start,
                    state=segment.state,
                )
                self._add(name, self._names.scope(segment.scope), segment.keys, segment.start, size)
                self.counters.written += 1
                self.counters.written_bytes += size
                if self.counters.written % _WRITES_PER_SWEEP == 0 or self._is_over():
                    self._sweep()
        finally:
            with self._lock:
                del self._unwritten[name]

    def _is_over(self) -> bool:
        with self._lock:
            return sum(segment.size for segment in self._index) > self._most_bytes

    def _sweep(self) -> None:
        """Remove files that are too old, and then those used least recently, of any model."""
        for name in sweep(self._folder, self._most_bytes, _MOST_AGE):
            with self._lock:
                self._index.remove(name)

    def _discard(self, name: str, reason: str, own: Path | None = None) -> None:
        self.counters.unusable += 1
        self._say(f"A cached prefix on disk cannot be used: {reason}. It is removed.")
        with self._lock:
            self._index.remove(name)
        with suppress(OSError):
            self._path(name, own).unlink()

    @contextmanager
    def _faults_said(self) -> Iterator[None]:
        """Say what keeps the folder from being used, and leave it alone for a while."""
        try:
            yield
        except OSError as error:
            self._say(f"Prefixes are not kept on disk: {error.strerror or error}.")
            self._paused_until = time.monotonic() + _PAUSE

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)

    def _path(self, name: str, own: Path | None = None) -> Path:
        return (own or self._folder / self._fingerprint.hex()) / f"{name}{SUFFIX}"

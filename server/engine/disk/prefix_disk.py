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
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.core.prefix_folder import (
    SECRET_FILE,
    SUFFIX,
    SWEEP_SHARE,
    DailyQuota,
    files_in,
    mark_used,
    note_model,
    read_secret,
    sweep,
)
from server.core.request import CacheScope
from server.engine.cache.buffers import Buffers
from server.engine.cache.radix_tree import common_prefix
from server.engine.cache.segment import KeptSegment, Segment
from server.engine.disk.counters import DiskCounters
from server.engine.disk.names import Names
from server.engine.disk.segment_file import (
    Contents,
    UnusableFile,
    read_header,
    read_segment,
    write_segment,
)
from server.engine.disk.segment_index import SegmentIndex, place_of
from server.engine.disk.segment_reader import SegmentReader
from server.engine.disk.segment_writer import SegmentWriter
from server.engine.priority import give_way
from server.engine.spans import Keys

logger = logging.getLogger(__name__)

# The first request waits so long for the files to be looked through, in seconds; a choice. A
# thousand files take less than half of that.
_LONGEST_SCAN = 1.0
# So many states are read one behind the other before the first is in its cells; a choice.
_MOST_SPARE_BUFFERS = 4


class PrefixDisk:
    """The segments of one model in ``folder``, whose files take ``most_bytes`` at most.

    All processes together write ``daily_bytes`` to it in a day, and files go that were unused for
    ``most_age`` seconds.
    ``model_id`` is for people. ``whole_states``: those of recurrent layers, which cannot be used in
    part. ``fingerprint`` stands for everything besides keys that a state
    depends on. It is called on another thread, at first, where it may take seconds, and before each
    file is written; it raises OSError once the model's files have changed. Until it returns, and
    whenever the folder cannot be used, nothing is found and nothing kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model_id: str,
        most_bytes: int,
        daily_bytes: int,
        most_age: float,
        fingerprint: Callable[[], bytes],
        whole_states: bool = False,
    ) -> None:
        self.counters = DiskCounters()
        self.most_bytes = most_bytes
        self._folder = folder
        self._most_age = most_age
        self._model_id = model_id
        self._ask_fingerprint = fingerprint
        self._fingerprint = b""
        self._scanned = threading.Event()
        self._names = Names(b"")
        self._lock = threading.Lock()
        self._index = SegmentIndex(whole=whole_states)
        self._quota = DailyQuota(folder, daily_bytes)
        self._written_since_sweep = 0
        self._said: set[str] = set()
        self._buffers = Buffers(_MOST_SPARE_BUFFERS)
        self._reader = SegmentReader(
            self._read,
            lambda: self._say("Cached prefixes are computed again: reading them takes too long."),
        )
        self._writer = SegmentWriter(self._write, self._say)
        self._writer.submit(self._open)
        self._writer.submit(give_way)  # a start waits for what `_open` finds, nobody for files

    def await_files(self) -> None:
        """Wait while the files of earlier processes are looked through, for a second at most.

        For the thread that prepares a request: so the first one after a start finds its prefix.
        """
        if self._fingerprint:
            self._scanned.wait(_LONGEST_SCAN)

    # --- from the engine's thread ---

    def find(self, scope: CacheScope, keys: Keys, length: int) -> tuple[KeptSegment, int] | None:
        """The segment that continues ``keys[:length]`` furthest, and up to which key."""
        return self._find(self._names.scope(scope), keys, length)

    def read_ahead(self, scope: CacheScope, keys: Keys, length: int) -> None:
        """Begin to read what continues ``keys[:length]``; `load` will ask for it soon."""
        self._read_ahead(self._names.scope(scope), keys, length)

    def forget_ahead(self) -> None:
        """Give back the memory of what `read_ahead` began to read: nobody waits for it."""
        self._reader.forget()

    def ready(self, segment: KeptSegment) -> bool:
        """Whether `load` would not wait for this segment, which is read if it was not yet.

        A file that takes too long counts as ready: `load` says at once that it is not here.
        """
        return self._reader.ready(segment)

    def stop_waiting(self) -> None:
        """Note that whoever waited for a segment until it is `ready` does so no longer."""
        self._reader.stop_waiting()

    def load(self, segment: KeptSegment, keys: Keys) -> NDArray[np.uint8] | None:
        """The state of a segment that `find` returned for ``keys``; None if it cannot be used.

        What cannot be used is not found again. What follows is read meanwhile. `recycle` gets the
        state back.
        """
        reached = segment.start + common_prefix(segment.keys, keys[segment.start :])
        self._reader.read_ahead(segment)
        self._read_ahead(segment.place[0], keys, reached)
        contents = self._reader.wait(segment)
        # Prompts can be made whose hashes are equal: only the keys themselves tell them apart.
        before = segment.start
        if contents is None or not np.array_equal(contents.keys[:before], keys[:before]):
            with self._lock:
                self._index.remove(segment.name)
            return None
        self.counters.read_cells += reached - before
        return contents.state

    def recycle(self, state: NDArray[np.uint8]) -> None:
        """Use the memory of a state from `load` for other states."""
        self._buffers.give_back(state)

    def refuse(self, segment: KeptSegment) -> None:
        """Remove a file whose state llama.cpp did not take."""
        with self._lock:
            self._index.remove(segment.name)
        self._writer.submit(self._discard, segment.name, "llama.cpp does not take it")

    def kept(self, scope: CacheScope, keys: Keys, start: int) -> int:
        """The size of the segment ``keys[start:]``, which counts as used now; 0 if not here."""
        name = self._names.segment(scope, keys, start)
        with self._lock:
            segment = self._index.get(name)
        if segment is None:
            return 0
        self._writer.submit(self._mark_used, segment)
        return segment.size

    def keep(self, segment: Segment) -> bool:
        """Write ``segment`` in the background; false if that has to wait until others are written.

        Its state must not change while `holds` it.
        """
        if not self._fingerprint or self.kept(segment.scope, segment.keys, segment.start):
            return True
        name = self._names.segment(segment.scope, segment.keys, segment.start)
        return self._writer.put(name, segment)

    def holds(self, state: NDArray[np.uint8]) -> bool:
        """Whether ``state`` is still to be written."""
        return self._writer.holds(state)

    def close(self, seconds: float) -> None:
        """Write what waits, for ``seconds`` at most."""
        self._reader.close()
        self._writer.close(seconds)

    def _find(self, scope: bytes, keys: Keys, length: int) -> tuple[KeptSegment, int] | None:
        if self._reader.paused:
            return None
        with self._lock:
            return self._index.find(scope, keys, length)

    def _read_ahead(self, scope: bytes, keys: Keys, length: int) -> None:
        while (found := self._find(scope, keys, length)) is not None:
            segment, length = found
            if not self._reader.read_ahead(segment):
                return

    # --- on the threads that read and write ---

    def _open(self) -> None:
        with suppress(FileExistsError):
            self._folder.mkdir(mode=0o700, parents=True)
        self._names = Names(read_secret(self._folder / SECRET_FILE))
        self._fingerprint = self._ask_fingerprint()
        try:
            note_model(self._folder, self._fingerprint.hex(), self._model_id)
            for file in files_in(self._folder / self._fingerprint.hex()):
                if file.path.suffix == SUFFIX:
                    self._take_in(file.path)
        finally:
            self._scanned.set()
        self._sweep()

    def _take_in(self, path: Path) -> None:
        """Add a file that was there before to the index, or remove it if it cannot be used."""
        try:
            with FileIO(path) as file:
                header, keys, _ = read_header(file)
                size = os.fstat(file.fileno()).st_size
            if header.fingerprint != self._fingerprint:
                raise UnusableFile("it is of another model or setting")
        except UnusableFile as error:
            self._discard(path.stem, str(error))
        except OSError:
            pass  # it vanished, or this one cannot be read
        else:
            self._add(path.stem, header.scope, keys, header.start, size)

    def _add(self, name: str, scope: bytes, keys: Keys, start: int, size: int) -> None:
        place = place_of(scope, keys, start)
        segment = KeptSegment(name, place, start, keys[start:].copy(), size)
        with self._lock:
            self._index.add(segment)

    def _read(self, segment: KeptSegment) -> Contents | None:
        path = self._path(segment.name)
        try:
            contents = read_segment(path, segment, self._fingerprint, self._buffers.take)
        except UnusableFile as error:
            self._discard(segment.name, str(error))
            return None
        except FileNotFoundError:
            return None
        except (OSError, MemoryError) as error:
            reason = error.strerror if isinstance(error, OSError) else "there is no memory for them"
            self._say(f"Cached prefixes cannot be read from disk: {reason}.")
            return None
        with suppress(FileNotFoundError):
            mark_used(path, segment.start)
        self.counters.read += 1
        self.counters.read_bytes += contents.state.nbytes
        return contents

    def _mark_used(self, segment: KeptSegment) -> None:
        try:
            mark_used(self._path(segment.name), segment.start)
        except FileNotFoundError:
            with self._lock:
                self._index.remove(segment.name)

    def _write(self, name: str, segment: Segment) -> None:
        if self._ask_fingerprint() != self._fingerprint:
            raise OSError("the model has changed")
        path = self._path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._quota.take(segment.state.nbytes):
            raise OSError("as much as a day allows was written")
        scope = self._names.scope(segment.scope)
        size = write_segment(
            path,
            fingerprint=self._fingerprint,
            scope=scope,
            keys=segment.keys,
            start=segment.start,
            state=segment.state,
        )
        mark_used(path, segment.start)
        self._add(name, scope, segment.keys, segment.start, size)
        self.counters.written += 1
        self.counters.written_bytes += size
        self._written_since_sweep += size
        if max(self._index.bytes, self._written_since_sweep / SWEEP_SHARE) > self.most_bytes:
            self._sweep()

    def _sweep(self) -> None:
        """Remove files that are too old, and then those used least recently, of any model."""
        self._written_since_sweep = 0
        for name in sweep(self._folder, self.most_bytes, self._most_age):
            with self._lock:
                self._index.remove(name)

    def _discard(self, name: str, reason: str) -> None:
        self.counters.unusable += 1
        self._say(f"A cached prefix on disk cannot be used: {reason}. It is removed.")
        with self._lock:
            self._index.remove(name)
        with suppress(OSError):
            self._path(name).unlink()

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)

    def _path(self, name: str) -> Path:
        return self._folder / self._fingerprint.hex() / f"{name}{SUFFIX}"

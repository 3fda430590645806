"""Which segments lie on disk, found by the keys that they continue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.engine.cache.radix_tree import common_prefix
from server.engine.cache.segment import KeptSegment
from server.engine.spans import Keys

# Odd, so that no power of it vanishes modulo 2**64; otherwise a choice.
_BASE = np.uint64(0x9E3779B97F4A7C15)


class SegmentIndex:
    """All segments of one model, by what they continue; their files have ``bytes`` together.

    With ``whole``, states can only be used as a whole. Not safe for several threads.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._by_name: dict[str, KeptSegment] = {}
        self._by_start: dict[tuple[bytes, int, int], list[KeptSegment]] = {}
        self._longest = 0
        self.bytes = 0

    def get(self, name: str) -> KeptSegment | None:
        """The segment of that name, if there is one."""
        return self._by_name.get(name)

    def add(self, segment: KeptSegment) -> None:
        """Add ``segment``, unless its name is known."""
        if segment.name not in self._by_name:
            self._by_name[segment.name] = segment
            self._by_start.setdefault(segment.place, []).append(segment)
            self._longest = max(self._longest, len(segment.keys))
            self.bytes += segment.size

    def remove(self, name: str) -> None:
        """Forget the segment of that name, if there is one."""
        segment = self._by_name.pop(name, None)
        if segment is not None:
            self.bytes -= segment.size
            others = self._by_start[segment.place]
            others.remove(segment)
            if not others:
                del self._by_start[segment.place]

    def find(self, scope: bytes, keys: Keys, length: int) -> tuple[KeptSegment, int] | None:
        """The segment that continues ``keys[:length]`` furthest, and up to which key."""
        if not self._by_name:
            return None
        hashes = _prefix_hashes(keys[:length])
        best, end = None, length
        for start in range(max(0, length - self._longest), length + 1):
            for segment in self._by_start.get((scope, start, int(hashes[start])), ()):
                common = common_prefix(segment.keys, keys[start:])
                reached = start + common
                if reached > end and (common == len(segment.keys) or not self._whole):
                    best, end = segment, reached
        return None if best is None else (best, end)


def place_of(scope: bytes, keys: Keys, start: int) -> tuple[bytes, int, int]:
    """What a segment continues, as `KeptSegment.place` has it."""
    return scope, start, int(_prefix_hashes(keys[:start])[-1])


def _prefix_hashes(keys: Keys) -> NDArray[np.uint64]:
    """A hash of each beginning of ``keys``, the empty one included: len(keys) + 1 values.

    Polynomials modulo 2**64. They only narrow a search; keys themselves are compared before use.
    """
    powers = np.full(len(keys), _BASE, dtype=np.uint64).cumprod()
    hashes = np.zeros(len(keys) + 1, dtype=np.uint64)
    np.cumsum(powers * (keys.astype(np.uint64) + np.uint64(1)), out=hashes[1:])
    return hashes

"""Cached prefixes in host memory, outside the KV cells.

On a CPU every step reads all cells in use, whichever sequence they belong to, so cached cells that
no running sequence needs slow every answer down. Prefixes without recent use are therefore kept
here. Putting one back into cells takes a copy, not a computation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.engine.cache.buffers import Buffers
from server.engine.cache.prefix_tier import PrefixTier
from server.engine.cache.radix_tree import common_prefix
from server.engine.cache.segment import Segment
from server.engine.spans import Keys


class PrefixStore:
    """Segments of up to ``most_cells`` cells together; new ones displace the oldest."""

    def __init__(self, most_cells: int, tier: PrefixTier | None = None) -> None:
        """``tier`` gets the segments that are displaced."""
        self.cells_free = most_cells
        self._tier = tier
        self._most_cells = most_cells
        self._segments: list[Segment] = []  # oldest first
        self._buffers = Buffers(1)

    def make_room(self, cells: int) -> bool:
        """Drop the oldest segments until ``cells`` fit; false, dropping none, if they never can."""
        if cells > self._most_cells:
            return False
        while cells > self.cells_free:
            oldest = self._segments[0]
            self.take(oldest)
            if self._tier is not None:
                self._tier.keep(oldest)
            self.recycle(oldest.state)
        return True

    def put(self, segment: Segment) -> None:
        """Add ``segment`` as the newest; `make_room` has made room for it."""
        assert segment.cells <= self.cells_free
        self._segments.append(segment)
        self.cells_free -= segment.cells

    def take(self, segment: Segment) -> None:
        """Remove ``segment``."""
        self._segments.remove(segment)
        self.cells_free += segment.cells

    def newest_first(self) -> list[Segment]:
        """All segments, the newest first."""
        return self._segments[::-1]

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """An array of ``size`` bytes for a state, in a recycled buffer if one fits."""
        return self._buffers.take(size)

    def recycle(self, state: NDArray[np.uint8]) -> None:
        """Keep the buffer of ``state`` for the next segment, unless it is still to be written."""
        if self._tier is None or not self._tier.holds(state):
            self._buffers.give_back(state)

    def find(self, scope: CacheScope, keys: Keys, length: int) -> tuple[Segment, int] | None:
        """The segment that continues ``keys[:length]`` furthest, and up to which key."""
        best, end = None, length
        for segment in self._segments:
            if segment.scope != scope or segment.start > length:
                continue
            # The one key that would be next rules most segments out.
            if end >= min(len(segment.keys), len(keys)) or segment.keys[end] != keys[end]:
                continue
            common = common_prefix(segment.keys, keys)
            if common > end:
                best, end = segment, common
        return None if best is None else (best, end)

    def reach(self, scope: CacheScope, keys: Keys, length: int) -> int:
        """Up to which key segments can extend ``keys[:length]``, one after another."""
        while (found := self.find(scope, keys, length)) is not None:
            length = found[1]
        return length

    def check_integrity(self) -> None:
        """Check that the segments fit the counts. Meant for tests.

        Raises:
            AssertionError: they do not.
        """
        assert self.cells_free + sum(s.cells for s in self._segments) == self._most_cells
        assert all(0 <= s.start < len(s.keys) for s in self._segments)

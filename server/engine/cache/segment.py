"""Runs of cached cells outside the KV cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.engine.spans import Keys


@dataclass(eq=False, slots=True)
class Segment:
    """The backend's copy of the cells of ``keys[start:]``; those before are not in it."""

    scope: CacheScope
    keys: Keys
    start: int
    state: NDArray[np.uint8]

    @property
    def cells(self) -> int:
        """The number of cells it takes to put it back."""
        return len(self.keys) - self.start


@dataclass(eq=False, slots=True)
class KeptSegment:
    """A segment in the tier: the cells of ``keys``, which follow ``start`` other keys.

    ``place`` is what it continues: its scope, ``start`` and a hash of those other keys. ``size`` is
    in bytes.
    """

    name: str
    place: tuple[bytes, int, int]
    start: int
    keys: Keys
    size: int

"""Runs of cached cells outside the KV cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from server.core.pieces import continues_image
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


def segments_of_edge(start: int, keys: Keys, lengths: Iterable[int]) -> list[tuple[int, int]]:
    """Where an edge of ``keys``, which follow ``start`` others, is cut into segments.

    That is at multiples of each of ``lengths``, or around the image in which one lies. The same
    place in a prefix is cut however long the prefix is, so a prefix that has grown has the segments
    that it had.

    One of the lengths is the window of sliding-window layers. A segment may be used again in part,
    so it must be complete in every layer. Of these layers llama.cpp saves only what the token after
    the end would read: the cells within the window before it, or those since the last multiple of
    the window where attention is chunked (``llama_hparams::is_masked_swa``, b11434).
    """
    end = start + len(keys)
    inner = {at for length in lengths for at in range(start - start % length, end, length)}
    cuts = {start, end}
    for at in inner:
        if at > start:
            cuts |= {start + cut for cut in _around_image(keys, at - start)}
    return [*pairwise(sorted(cuts))]


def _around_image(keys: Keys, at: int) -> tuple[int, int]:
    """The ends of the image inside of which ``keys[at]`` lies, else ``at`` twice."""
    first = last = at
    while first > 0 and continues_image(keys[first]):
        first -= 1
    if first < at:
        while last < len(keys) and continues_image(keys[last]):
            last += 1
    return first, last

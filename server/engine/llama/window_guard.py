"""Keeps the cells of sliding-window layers for prefixes that may be asked for again.

llama.cpp counts a cell as free once the only sequence that holds it has moved on by a window: no
later token of that sequence reads it (``llama_kv_cache::find_slot``, b11434). It does so in
full-size caches too (``swa_full``), and silently takes from the sequence all cells up to that one.
A request that shares only a part of the sequence would then be computed without them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from server.engine.batch import Batch


class WindowGuard:
    """Lets a second id, the twin, hold the cells of each of ``ids`` sequence ids.

    Cells that two ids hold are never taken. A twin follows when half a ``window`` (in cells) has
    been computed, since no cell can leave the window before. ``hold`` lets a target id hold the
    cells [start, end) of a source id, and ``release`` takes the cells from a start on from an id.
    """

    def __init__(
        self,
        ids: int,
        window: int,
        hold: Callable[[int, int, int, int], None],
        release: Callable[[int, int], None],
    ) -> None:
        self._ids = ids
        self._most_unheld = max(window // 2, 1)
        self._hold = hold
        self._release = release
        self._lengths = np.zeros(ids, dtype=np.int32)
        self._held = np.zeros(ids, dtype=np.int32)

    def grown(self, batch: Batch) -> None:
        """Take note of the cells that ``batch`` has added."""
        added = slice(batch.size)
        self._lengths[batch.sequence_ids[added]] = batch.positions[added] + 1
        self._catch_up()

    def grew(self, sequence_id: int, length: int) -> None:
        """Take note that the id has ``length`` cells now."""
        self._lengths[sequence_id] = length
        self._catch_up()

    def _catch_up(self) -> None:
        for sequence_id in np.flatnonzero(self._lengths - self._held >= self._most_unheld):
            self._follow(int(sequence_id), int(self._lengths[sequence_id]))

    def shared(self, sequence_id: int, start: int, end: int) -> None:
        """Take note that the id now holds other cells for [start, end)."""
        if start < self._held[sequence_id]:
            self._cut(sequence_id, start)
        self._lengths[sequence_id] = max(end, int(self._lengths[sequence_id]))
        self._follow(sequence_id, int(self._lengths[sequence_id]))

    def cut(self, sequence_id: int, length: int) -> None:
        """Take note that the id has lost all cells from ``length`` on."""
        self._lengths[sequence_id] = length
        if length < self._held[sequence_id]:
            self._cut(sequence_id, length)

    def clear(self) -> None:
        """Take note that all ids, twins included, have lost all cells."""
        self._lengths[:] = self._held[:] = 0

    def _follow(self, sequence_id: int, length: int) -> None:
        twin = sequence_id + self._ids
        self._hold(sequence_id, twin, int(self._held[sequence_id]), length)
        self._held[sequence_id] = length

    def _cut(self, sequence_id: int, length: int) -> None:
        self._release(sequence_id + self._ids, length)
        self._held[sequence_id] = length

"""At which position each cell of a sequence lies, where images take fewer positions than cells.

With positions in several dimensions (M-RoPE), all cells of an image have one position in time, and
what follows is as many positions further on as the image is wide or high. llama.cpp's memory calls
take positions; the engine counts cells.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

_NUMBER = np.dtype("<i4")


class PositionMap:
    """The *lags* of each sequence id: by how much cells are ahead of positions, from which cell on.

    Every method mirrors a call on the memory. Cells are counted from the sequence's beginning, and
    never lie inside an image.
    """

    def __init__(self) -> None:
        self._lags: dict[int, list[tuple[int, int]]] = {}

    def position(self, sequence_id: int, cell: int) -> int:
        """The position of ``cell``, which may be the next one."""
        return cell - self._lag(sequence_id, cell)

    def added_image(self, sequence_id: int, position: int, cells: int, advance: int) -> None:
        """An image was added to the end of a sequence, its first cell at ``position``."""
        lags = self._lags.setdefault(sequence_id, [])
        lag = lags[-1][1] if lags else 0
        lags.append((position + lag + cells, lag + cells - advance))

    def shared(self, source: int, target: int, start: int, end: int) -> None:
        """``target`` has the cells [start, end) of ``source`` now."""
        own = self._lags.get(target, [])
        lags = [found for found in own if found[0] <= start]
        begun = self._lag(source, start)
        if begun != (lags[-1][1] if lags else 0):
            lags.append((start, begun))
        lags += [found for found in self._lags.get(source, []) if start < found[0] <= end]
        self._lags[target] = lags + [found for found in own if found[0] > end]

    def cut(self, sequence_id: int, length: int) -> None:
        """A sequence has lost all cells from ``length`` on."""
        if not length:
            self._lags.pop(sequence_id, None)
        elif sequence_id in self._lags:
            self._lags[sequence_id] = [
                found for found in self._lags[sequence_id] if found[0] <= length
            ]

    def clear(self) -> None:
        """All sequences have lost all cells."""
        self._lags.clear()

    def packed(self, sequence_id: int, start: int) -> NDArray[np.uint8]:
        """The lags from cell ``start`` on, as bytes that `unpacked` takes off the end of others."""
        later = [found for found in self._lags.get(sequence_id, []) if found[0] > start]
        pairs = [(start, self._lag(sequence_id, start)), *later]
        numbers = [number for pair in pairs for number in pair]
        return np.array([*numbers, len(pairs)], dtype=_NUMBER).view(np.uint8)

    def unpacked(self, state: NDArray[np.uint8], sequence_id: int) -> NDArray[np.uint8]:
        """Take the lags of a sequence off the end of ``state``; returns the rest."""
        count = int(state[-_NUMBER.itemsize :].view(_NUMBER)[0])
        size = (2 * count + 1) * _NUMBER.itemsize
        numbers = state[-size : -_NUMBER.itemsize].view(_NUMBER).reshape(-1, 2).tolist()
        self._lags[sequence_id] = [(cell, lag) for cell, lag in numbers]
        return state[:-size]

    def _lag(self, sequence_id: int, cell: int) -> int:
        lags = self._lags.get(sequence_id, [])
        index = bisect_right(lags, (cell, 1 << 31))
        return lags[index - 1][1] if index else 0

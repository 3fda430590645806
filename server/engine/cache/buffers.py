"""Memory for states, used again and again."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

# Buffers are multiples of this size, so that one can serve the next state too; a choice.
_UNIT_BYTES = 1 << 20
# Buffers that are kept have at most so many bytes together, or are one of any size; a choice:
# states of recurrent layers with a long text's cells can have a gigabyte each.
_MOST_BYTES = 256 << 20


class Buffers:
    """Keeps up to ``most`` buffers that were given back, 256 MiB or one. Safe for several threads.

    Fresh pages from the system cost several times what copying a state into them does.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._spare: list[NDArray[np.uint8]] = []  # given back last, last

    def take(self, size: int) -> NDArray[np.uint8]:
        """An array of ``size`` bytes, in a buffer that was given back if one fits."""
        with self._lock:
            for place in reversed(range(len(self._spare))):
                if size <= self._spare[place].size <= 2 * size + _UNIT_BYTES:
                    return self._spare.pop(place)[:size]
        return np.empty(-(-size // _UNIT_BYTES) * _UNIT_BYTES, dtype=np.uint8)[:size]

    def give_back(self, state: NDArray[np.uint8]) -> None:
        """Keep the buffer of ``state``, which nobody uses any more; the oldest makes room."""
        with self._lock:
            self._spare.append(state if state.base is None else state.base)
            while len(self._spare) > self._most or (
                len(self._spare) > 1 and sum(each.size for each in self._spare) > _MOST_BYTES
            ):
                del self._spare[0]

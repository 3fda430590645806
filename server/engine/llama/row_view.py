"""Rows of numbers that llama.cpp has computed."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RowView:
    """A view of rows in llama.cpp's memory, made anew only where they lie elsewhere.

    Making it takes longer than finding the largest of a row's numbers.
    """

    def __init__(self, width: int) -> None:
        """``width`` is the length of a row."""
        self._width = width
        self._viewed: tuple[int, int] | None = None
        self._view: NDArray[np.float32] = np.empty((0, width), dtype=np.float32)

    def of(self, pointer: Any, rows: int) -> NDArray[np.float32]:
        """The first ``rows`` behind ``pointer``, shape (rows, width); none of them is copied."""
        address = ctypes.addressof(pointer.contents)
        if (address, rows) != self._viewed:
            self._viewed = address, rows
            self._view = np.ctypeslib.as_array(pointer, shape=(rows, self._width))
        return self._view

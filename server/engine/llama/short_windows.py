"""Sliding-window layers that keep a window of each sequence, and more only by chance.

llama.cpp takes the cell of such a layer for another token once the only sequence that holds it has
moved on by a window (``llama_kv_cache::find_slot``, b11434). Until then it is still there.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from server.engine.llama.library import log

_WINDOWS_ONLY = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY


class ShortWindows:
    """What the sequences of ``context`` have in its layers that look back ``window`` positions."""

    def __init__(self, context: Any, window: int) -> None:
        self._context = context
        self._memory = llama_cpp.llama_get_memory(context)
        self._window = window
        self._state: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)

    def has_before(self, sequence_id: int, position: int) -> bool:
        """Whether the id still has all that a token at ``position`` reads."""
        first = int(llama_cpp.llama_memory_seq_pos_min(self._memory, sequence_id))
        return first == 0 or position - self._window + 1 >= first

    def own(self, sequence_id: int) -> None:
        """Give the id cells of its own in place of those that it shares, with the same contents.

        A cell that two ids hold would never be taken, so that none were left in the end.

        Raises:
            RuntimeError: there are fewer cells than a window for each id.
        """
        size = llama_cpp.llama_state_seq_get_size_ext(self._context, sequence_id, _WINDOWS_ONLY)
        if self._state.size < size:
            self._state = np.empty(size, dtype=np.uint8)
        state = self._state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        where = (self._context, state, size, sequence_id, _WINDOWS_ONLY)
        llama_cpp.llama_state_seq_get_data_ext(*where)
        if not llama_cpp.llama_state_seq_set_data_ext(*where):
            raise RuntimeError(f"no cells for the window of sequence {sequence_id}: {log.take()}")

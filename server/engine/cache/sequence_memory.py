"""The memory calls that the prefix cache makes; a backend provides them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class SequenceMemory(Protocol):
    """KV cells that sequence ids can share.

    ``partial_removal`` is false where a state cannot be cut back to any earlier token (recurrent
    and hybrid models, and sliding windows without the cells beyond them): such a state is kept only
    as a whole. ``removes_drafts``: whether the last tokens of the last decode can be removed again.
    ``window`` is the number of cells that sliding-window layers look back, or None where there are
    none that keep more.
    """

    partial_removal: bool
    removes_drafts: bool
    window: int | None

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Let the unused id ``target`` share the first ``length`` cells of ``source``."""

    def can_cut(self, sequence_id: int, length: int) -> bool:
        """Whether `copy_sequence` can share that many of its cells, which are fewer than it has."""

    def share_range(self, source: int, target: int, start: int, end: int) -> None:
        """Free ``target``'s own cells [start, end) and share ``source``'s instead."""

    def truncate_sequence(self, sequence_id: int, length: int) -> None:
        """Free the cells of ``sequence_id`` from cell ``length`` on; with 0, all of them."""

    def save(
        self, sequence_id: int, start: int, allocate: Callable[[int], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """Copy the cells from ``start`` on; the id loses those before.

        Fills and returns the array that ``allocate`` gives for the number of bytes needed. Of
        sliding-window layers, only the cells that the next token would read are in it.
        """

    def restore(self, state: NDArray[np.uint8], sequence_id: int) -> bool:
        """Put what `save` returned into free cells of the unused id; false if that fails."""

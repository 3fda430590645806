"""What the engine needs of a loaded model; `llama.py` provides it, tests provide a fake twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.engine.batch import Batch


class NoCellsLeft(Exception):
    """A decode found no free KV cells for its batch; nothing of it was computed."""


class DecodeFailed(Exception):
    """A decode failed for another reason; the KV cells of its batch are undefined."""


class Backend(Protocol):
    """A model with KV cells for many sequences.

    ``kv_cells`` is the number of cells all sequences share, ``sequence_ids`` how many sequence ids
    there are, ``batch_size`` the most tokens and ``outputs_per_batch`` the most logits rows of one
    decode. ``partial_removal`` is false for memories whose state cannot be cut back to an earlier
    token (recurrent and hybrid models).
    """

    vocabulary_size: int
    kv_cells: int
    sequence_ids: int
    batch_size: int
    outputs_per_batch: int
    partial_removal: bool

    def decode(self, batch: Batch) -> None:
        """Compute the batch. Raises NoCellsLeft or DecodeFailed."""

    def logits(self, rows: int) -> NDArray[np.float32]:
        """The last decode's logits, shape (rows, vocabulary_size): a view, valid until the next."""

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Let ``target`` share the cells of the first ``length`` tokens of ``source``."""

    def share_range(self, source: int, target: int, start: int, end: int) -> None:
        """Free ``target``'s own cells of tokens [start, end) and share ``source``'s instead."""

    def truncate_sequence(self, sequence_id: int, length: int) -> None:
        """Free the cells of ``sequence_id`` from token ``length`` on (0: all of them)."""

    def save(
        self, sequence_id: int, start: int, allocate: Callable[[int], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """A copy of the cells from token ``start`` on; the id loses those before.

        It fills what ``allocate`` gives for the number of bytes it takes.
        """

    def restore(self, state: NDArray[np.uint8], sequence_id: int) -> bool:
        """Put what `save` gave into free cells of the unused ``sequence_id``; false if it fails."""

    def set_threads(self, threads: int) -> None:
        """Use ``threads`` threads from the next decode on."""

    def piece(self, token: int) -> bytes:
        """The bytes the token stands for in text, control tokens included."""

    def is_end_of_generation(self, token: int) -> bool:
        """Whether generating the token ends an answer."""

    def is_control(self, token: int) -> bool:
        """Whether the token is a control token."""

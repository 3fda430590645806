"""The engine's view of a loaded model; `llama` provides it, tests provide a fake one."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.engine.adapters import Adapters
from server.engine.batch import Batch
from server.engine.cache.sequence_memory import SequenceMemory


class NoCellsLeft(Exception):
    """A decode found too few free KV cells for its batch; nothing was computed."""


class DecodeFailed(Exception):
    """A decode failed for another reason; the KV cells of its batch are undefined."""


class Backend(SequenceMemory, Protocol):
    """A model with KV cells for many sequences.

    ``kv_cells`` is the number of cells that all sequences share, ``sequence_ids`` the number of
    sequence ids, ``batch_size`` the most tokens and ``outputs_per_batch`` the most rows of logits
    of one decode.
    """

    vocabulary_size: int
    kv_cells: int
    sequence_ids: int
    batch_size: int
    outputs_per_batch: int

    def repeats(self, adapters: Adapters | None) -> bool:
        """Whether so far, computed with ``adapters``, logits depended on the text alone.

        That is to the bit, and on the text before a token.
        """

    def decode(self, batch: Batch) -> None:
        """Compute the batch.

        Raises:
            NoCellsLeft: too few KV cells are free; nothing was computed.
            DecodeFailed: it failed otherwise; the batch's cells are undefined.
        """

    def clear(self) -> None:
        """Free all cells."""

    def logits(self, rows: int) -> NDArray[np.float32]:
        """The last decode's logits, shape (rows, vocabulary_size): a view, valid until the next."""

    def states(self, rows: int) -> NDArray[np.float32]:
        """The hidden states after the last decode's first ``rows`` tokens: shape (rows, width).

        They are there where the batch asked for them: a view, valid until the next.
        """

    def set_threads(self, threads: int) -> None:
        """Use ``threads`` threads from the next decode on."""

    def piece(self, token: int) -> bytes:
        """The bytes the token stands for in text, control tokens included."""

    def is_end_of_generation(self, token: int) -> bool:
        """Whether generating the token ends an answer."""

    def is_control(self, token: int) -> bool:
        """Whether the token is a control token."""

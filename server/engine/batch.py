"""One step's tokens on their way to a decode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.engine.adapters import Adapters


class Batch:
    """Arrays with room for ``capacity`` tokens, filled anew for each step.

    A decode returns its rows of logits in the order in which the batch asked for them. All tokens
    are computed with ``adapters``.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self.outputs = 0
        self.adapters: Adapters | None = None
        self.tokens = np.zeros(capacity, dtype=np.int32)
        self.positions = np.zeros(capacity, dtype=np.int32)
        self.sequence_ids = np.zeros(capacity, dtype=np.int32)
        self.wants_logits = np.zeros(capacity, dtype=np.int8)
        self._ascending = np.arange(capacity, dtype=np.int32)

    def clear(self) -> None:
        """Remove all tokens."""
        self.size = 0
        self.outputs = 0

    def add(
        self, sequence_id: int, tokens: NDArray[np.int32], position: int, logits_from: int
    ) -> int:
        """Append ``tokens`` of one sequence, the first at ``position``.

        Asks for the logits after each token from index ``logits_from`` of ``tokens`` on; returns
        the row that the first of them gets.
        """
        start, row, count = self.size, self.outputs, len(tokens)
        self.size += count
        self.outputs += count - logits_from
        if count == 1:  # nearly always so, and several times faster without slices
            self.tokens[start] = tokens[0]
            self.positions[start] = position
            self.sequence_ids[start] = sequence_id
            self.wants_logits[start] = 1 - logits_from
            return row
        added = slice(start, start + count)
        self.tokens[added] = tokens
        np.add(self._ascending[:count], position, out=self.positions[added])
        self.sequence_ids[added] = sequence_id
        self.wants_logits[added] = 0
        self.wants_logits[start + logits_from : start + count] = 1
        return row

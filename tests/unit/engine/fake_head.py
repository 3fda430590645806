"""A head of the fake backend's model: its guesses are right where it gets the right states."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.core.worker_settings import HEAD_STATES
from server.engine.backend import NoCellsLeft
from server.engine.batch import Batch
from tests.unit.engine.fake_backend import FakeBackend


class FakeHead:
    """Checks that each token comes with the state of the cell before it.

    ``read`` has the text before each token that it was given, and that token.
    """

    state_width = 1

    def __init__(self, model: FakeBackend, *, kv_cells: int = 1024, sequence_ids: int = 4) -> None:
        self.vocabulary_size = model.vocabulary_size
        self.kv_cells = kv_cells
        self.sequence_ids = sequence_ids
        self.batch_size = HEAD_STATES
        self.read: list[list[int]] = []
        self.broken: Exception | None = None
        self._model = model
        self._places: dict[int, range] = {}
        self._logits: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
        self._states: NDArray[np.float32] = np.empty((0, 1), dtype=np.float32)

    @property
    def cells_used(self) -> int:
        return sum(map(len, self._places.values()))

    def decode(self, batch: Batch) -> None:
        assert batch.states is not None
        assert batch.wants_states
        if self.broken is not None:
            raise self.broken
        if self.cells_used + batch.size > self.kv_cells:
            raise NoCellsLeft
        rows, texts = [], self._model.texts
        states = []
        for i in range(batch.size):
            sequence, place = int(batch.sequence_ids[i]), int(batch.positions[i])
            assert 0 <= sequence < self.sequence_ids
            before = texts[int(batch.states[i, 0])]
            assert len(before) == place, "the state of another cell"
            mine = self._places.get(sequence) or range(place, place)
            assert place == mine.stop, "positions must continue the sequence"
            self._places[sequence] = range(mine.start, place + 1)
            self.read.append([*before, int(batch.tokens[i])])
            if batch.wants_logits[i]:
                rows.append(self.row_after(self.read[-1]))
                states.append([len(texts)])
                texts.append(self.read[-1])
        self._logits = np.array(rows, dtype=np.float32)
        self._states = np.array(states, dtype=np.float32)

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        return self._model.row_after(tokens)

    def logits(self, rows: int) -> NDArray[np.float32]:
        assert rows == len(self._logits)
        return self._logits

    def states(self, rows: int) -> NDArray[np.float32]:
        assert rows == len(self._states)
        return self._states

    def truncate_sequence(self, sequence_id: int, length: int) -> None:
        mine = self._places.get(sequence_id, range(0))
        self._places[sequence_id] = range(mine.start, max(mine.start, min(mine.stop, length)))

    def set_threads(self, threads: int) -> None:
        pass

    def is_end_of_generation(self, token: int) -> bool:
        return self._model.is_end_of_generation(token)

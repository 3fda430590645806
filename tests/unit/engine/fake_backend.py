"""A twin of the llama.cpp backend whose cells can be inspected.

Every cell remembers its token, its position and the sequence ids that share it. The "model" is a
hash: the next token follows from all tokens before it, so a wrong cell changes the answer. With a
``window``, a saved state has only the cells that the next token would read, as in llama.cpp. With
``lost_beyond``, every third decode takes all cells that no next token will read so many back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.engine.adapters import Adapters
from server.engine.backend import DecodeFailed, NoCellsLeft
from server.engine.batch import Batch

END = 0
# The ways in which memories take tokens back: any, none, and those that window layers still have.
MEMORIES: dict[str, dict[str, Any]] = {
    "cells": {},
    "whole states": {"partial_removal": False},
    "short windows": {"lost_beyond": 5},
}
# In the place of a token whose cell a sliding-window layer lacks.
LOST = -1


class FakeBackend:
    def __init__(
        self,
        *,
        kv_cells: int = 256,
        sequence_ids: int = 16,
        batch_size: int = 64,
        outputs_per_batch: int = 64,
        vocabulary_size: int = 50,
        partial_removal: bool = True,
        window: int | None = None,
        lost_beyond: int | None = None,
        repeats: bool = False,
    ) -> None:
        self._repeats = repeats
        self.kv_cells = kv_cells
        self.sequence_ids = sequence_ids
        self.batch_size = batch_size
        self.outputs_per_batch = outputs_per_batch
        self.vocabulary_size = vocabulary_size
        self.partial_removal = partial_removal and lost_beyond is None
        self.removes_drafts = partial_removal
        self.window = window
        self._lost_beyond = lost_beyond
        # per sequence id: the first position that its window layers still have
        self._first: dict[int, int] = {}
        self.threads = 0
        self.poison: int | None = None
        self.decoded_tokens = 0
        self.batches: list[list[tuple[int, int]]] = []
        # per sequence id: position -> cell number; per cell: token
        self._cells: dict[int, dict[int, int]] = {}
        self._tokens: dict[int, int] = {}
        self._next_cell = 0
        self._logits: NDArray[np.float32] = np.empty((0, vocabulary_size), dtype=np.float32)
        # A state is a number: that of a text here, at whose end it is.
        self.texts: list[list[int]] = []
        self._states: NDArray[np.float32] = np.empty((0, 1), dtype=np.float32)

    def repeats(self, adapters: Adapters | None) -> bool:
        return self._repeats

    @property
    def cells_used(self) -> int:
        return self.cells_held_by(self._cells)

    def cells_held_by(self, sequence_ids: Iterable[int]) -> int:
        return len({cell for i in sequence_ids for cell in self._cells.get(i, {}).values()})

    def tokens_of(self, sequence_id: int) -> list[int]:
        cells = self._cells.get(sequence_id, {})
        assert sorted(cells) == list(range(len(cells))), "a hole in the sequence"
        return [self._tokens[cells[position]] for position in range(len(cells))]

    def decode(self, batch: Batch) -> None:
        assert 0 < batch.size <= self.batch_size
        assert batch.outputs <= self.outputs_per_batch
        tokens = batch.tokens[: batch.size].tolist()
        if self.poison in tokens:
            raise DecodeFailed("poison")
        if self.cells_used + batch.size > self.kv_cells:
            raise NoCellsLeft
        if len(self.batches) % 3 == 2:
            self._lose_cells()
        rows = []
        first_text = len(self.texts)
        seen = set()
        for i, token in enumerate(tokens):
            sequence, position = int(batch.sequence_ids[i]), int(batch.positions[i])
            assert (sequence, position) not in seen, "twice in one batch"
            seen.add((sequence, position))
            cells = self._cells.setdefault(sequence, {})
            assert position == len(cells), "positions must continue the sequence"
            cells[position] = self._next_cell
            self._tokens[self._next_cell] = token
            self._next_cell += 1
            assert self._reads(sequence, position), "its window was taken"
            if batch.wants_logits[i]:
                rows.append(self.row_after(self.tokens_of(sequence)))
            if batch.wants_states:
                self.texts.append(self.tokens_of(sequence))
        self.decoded_tokens += len(tokens)
        self.batches.append(sorted(seen))
        self._logits = np.array(rows, dtype=np.float32).reshape(-1, self.vocabulary_size)
        self._states = np.arange(first_text, len(self.texts), dtype=np.float32)[:, np.newaxis]

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        """The logits after ``tokens``: a distribution that all of them decide."""
        seed = hash(tuple(tokens)) & 0xFFFFFFFF
        row = np.random.default_rng(seed).normal(size=self.vocabulary_size).astype(np.float32)
        row[END] -= 3
        return row

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """What a lone greedy answer of up to ``count`` tokens must be (END excluded)."""
        tokens = list(prompt)
        for _ in range(count):
            token = int(self.row_after(tokens).argmax())
            if token == END:
                break
            tokens.append(token)
        return tokens[len(prompt) :]

    def logits(self, rows: int) -> NDArray[np.float32]:
        assert rows == len(self._logits)
        return self._logits

    def states(self, rows: int) -> NDArray[np.float32]:
        assert rows == len(self._states)
        return self._states

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        cells = self._cells.get(source, {})
        assert not self._cells.get(target), "the target id is in use"
        assert len(cells) >= length
        if not self.partial_removal and len(cells) != length:
            assert self.can_cut(source, length), "a state can only be copied whole"
        if self._lost_beyond is not None:
            self._first[target] = max(0, length - self._lost_beyond)
        self._cells[target] = {p: cells[p] for p in range(length)}

    def can_cut(self, sequence_id: int, length: int) -> bool:
        return self._lost_beyond is not None and self._reads(sequence_id, length)

    def _reads(self, sequence_id: int, position: int) -> bool:
        """Whether all cells are there that a token at ``position`` reads."""
        first = self._first.get(sequence_id, 0)
        return self._lost_beyond is None or position - self._lost_beyond + 1 >= first or not first

    def _lose_cells(self) -> None:
        if self._lost_beyond is not None:
            for sequence_id, cells in self._cells.items():
                kept = max(0, len(cells) - self._lost_beyond + 1)
                self._first[sequence_id] = max(kept, self._first.get(sequence_id, 0))

    def share_range(self, source: int, target: int, start: int, end: int) -> None:
        mine, theirs = self._cells.setdefault(target, {}), self._cells[source]
        for position in range(start, end):
            if position in mine:
                assert self._tokens[mine[position]] == self._tokens[theirs[position]]
            mine[position] = theirs[position]

    def truncate_sequence(self, sequence_id: int, length: int) -> None:
        cells = self._cells.get(sequence_id, {})
        if length and not self.removes_drafts:
            assert len(cells) == length, "a state cannot be cut back"
        assert not length or self._reads(sequence_id, length), "a state cannot be cut back so far"
        if not length:
            self._first.pop(sequence_id, None)
        self._cells[sequence_id] = {p: c for p, c in cells.items() if p < length}

    def clear(self) -> None:
        self._cells.clear()
        self._first.clear()

    def save(
        self, sequence_id: int, start: int, allocate: Callable[[int], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        cells = self._cells[sequence_id]
        assert self.partial_removal or not start, "a state can only be saved whole"
        kept = {p: c for p, c in cells.items() if p >= start}
        self._cells[sequence_id] = kept
        read_next = max(cells) + 1 - (self.window or len(cells) + start)
        pairs = [[p, self._tokens[c] if p >= read_next else LOST] for p, c in kept.items()]
        saved = np.array(pairs, dtype=np.int32).reshape(-1).view(np.uint8)
        state = allocate(saved.size)
        state[:] = saved
        return state

    def restore(self, state: NDArray[np.uint8], sequence_id: int) -> bool:
        assert not self._cells.get(sequence_id), "the target id is in use"
        pairs = state.view(np.int32).reshape(-1, 2).tolist()
        if self.cells_used + len(pairs) > self.kv_cells:
            return False
        self._cells[sequence_id] = {}
        if self._lost_beyond is not None:
            self._first[sequence_id] = max(0, len(pairs) - self._lost_beyond)
        for position, token in pairs:
            self._cells[sequence_id][position] = self._next_cell
            self._tokens[self._next_cell] = token
            self._next_cell += 1
        return True

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def piece(self, token: int) -> bytes:
        return b"" if token == END else f"<{token}>".encode()

    def is_end_of_generation(self, token: int) -> bool:
        return token == END

    def is_control(self, token: int) -> bool:
        return token == END

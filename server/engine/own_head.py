"""The head in a model's own file that guesses the token after the next one (MTP, "nextn").

It is one more layer: from a token and the model's hidden state before that token, it predicts the
next token, and a state of its own from which it goes on. It has KV cells of its own, which would
have to be kept wherever the model's are, in cached prefixes, in host memory and on disk. But a
guess need not be exact: only less often right. So the head sees of a text what the model computes
while a request runs, the last `HEAD_STATES` tokens of a prompt and the answer, at their true
positions. The rest is in the hidden states, which depend on the whole text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.core.worker_settings import HEAD_STATES
from server.engine.batch import Batch
from server.engine.drafter import DraftBackend, Drafter, Followed
from server.engine.sequence import SequenceState

States = NDArray[np.float32]
"""Hidden states, shape (cells, width)."""


class HeadBackend(DraftBackend, Protocol):
    """A head's KV cells; its batches carry a state of ``state_width`` numbers with each token."""

    state_width: int

    def states(self, rows: int) -> States:
        """The head's own states after the tokens whose logits were asked for: a view."""

    def truncate_sequence(self, sequence_id: int, length: int) -> None:
        """Free the cells of ``sequence_id`` from cell ``length`` on; with 0, all of them."""


@dataclass(eq=False, slots=True)
class _Known(Followed):
    """A sequence, and the model's ``states`` of its last cells before ``known``.

    The head has the cells from ``first`` on. It reads a cell together with the state of the one
    before.
    """

    first: int = 0
    known: int = 0
    states: deque[States] = field(default_factory=lambda: deque(maxlen=HEAD_STATES))

    def forget_from(self, cell: int) -> None:
        """Drop the states of ``cell`` and later ones."""
        while self.known > cell and self.states:
            self.states.pop()
            self.known -= 1

    @property
    def readable(self) -> int:
        """The first cell that can be read."""
        return self.known - len(self.states) + 1

    @property
    def cells(self) -> int:
        """How many of the head's cells it has."""
        return self.computed - self.first + len(self.guesses)


class OwnHead(Drafter[_Known]):
    """Guesses by the model's own head, from states that `learn` gets after each step."""

    name = "the model's own head (MTP)"
    most_unread = HEAD_STATES

    def __init__(self, backend: HeadBackend) -> None:
        """``backend`` takes `HEAD_STATES` tokens in a batch, or more."""
        batch = Batch(backend.batch_size, state_width=backend.state_width)
        batch.wants_states = True
        super().__init__(backend, batch, tokens=backend.vocabulary_size)
        self._head = backend
        self._ids = list(range(backend.sequence_ids))
        # Its own states after the last decode, one for each row of logits.
        self._guessed: States = np.empty((0, backend.state_width), dtype=np.float32)

    @staticmethod
    def wants(state: SequenceState, end: int) -> bool:
        """Whether it wants the states of a sequence's cells that end at ``end``."""
        return end > state.prompt_length - HEAD_STATES

    def learn(self, state: SequenceState, states: States) -> None:
        """Take the model's ``states`` of cells from ``state.computed`` on, drafts among them."""
        followed = self._followed.get(state.order)
        if followed is None:
            followed = self._followed[state.order] = _Known(state, self._ids.pop(), 0)
        start = state.computed
        followed.forget_from(start)
        if followed.known != start:  # those between were computed without it
            followed.states.clear()
        followed.known = start + len(states)
        followed.states.extend(states[-HEAD_STATES:].copy())

    def unread(self, state: SequenceState) -> int | None:
        """How many cells have to be computed before a guess; None where it cannot follow."""
        followed = self._followed.get(state.order)
        if followed is None:
            return None
        followed.forget_from(state.computed)
        if not followed.states or followed.known != state.computed:
            return None
        if followed.computed < followed.readable:
            # Positions must be consecutive, so it begins anew where it can read on.
            self._cut(followed, followed.first)
            followed.first = followed.computed = followed.readable
        else:
            # Guesses were computed from the head's own states; and the last token is read again
            # where its step is computed again.
            self._cut(followed, min(followed.computed, followed.known))
        return followed.unread

    def read(self, state: SequenceState) -> None:
        """There is never more to read than is read with a guess."""
        raise AssertionError("a head reads at most HEAD_STATES cells")

    def _ready(
        self, wanted: Sequence[tuple[SequenceState, int]]
    ) -> Sequence[tuple[SequenceState, int]]:
        """Read all but the last token of each.

        Those are not read with the last one, since llama.cpp b11434 hands out the states after the
        first tokens of a batch in place of those after the tokens with logits (its graphs of GLM-4
        MoE, DeepSeek 2, Cohere 2 MoE and HY v3). Where all want logits, they are the same.
        """
        self._batch.clear()
        read: list[tuple[_Known, int]] = []
        for state, _ in wanted:
            followed = self._followed[state.order]
            count = followed.unread - 1
            room = self._batch.capacity - self._batch.size
            if 0 < count <= room and self._make_room(self._batch.size + count):
                self._add(followed, count, logits=False)
                read.append((followed, count))
        if read:
            self._decode()
            for followed, count in read:
                self._computed(followed, count)
        return [(state, most) for state, most in wanted if self._followed[state.order].unread == 1]

    def _cut(self, followed: _Known, end: int) -> None:
        """Free its cells from ``end`` on."""
        if end < followed.computed or followed.guesses:
            self._head.truncate_sequence(followed.sequence_id, end if end > followed.first else 0)
        followed.computed = end
        followed.guesses = []

    def _make_room(self, cells: int) -> bool:
        used = sum(followed.cells for followed in self._followed.values())
        return used + cells <= self._backend.kv_cells

    def _grew(self, followed: _Known, cells: int) -> None:
        pass  # `_Known.cells` counts them

    def _end(self, followed: _Known) -> None:
        self._cut(followed, followed.first)
        self._ids.append(followed.sequence_id)

    def _add(self, followed: _Known, count: int, *, logits: bool) -> None:
        begin = followed.computed - followed.readable
        self._put(islice(followed.states, begin, begin + count))
        super()._add(followed, count, logits=logits)

    def _add_guess(self, followed: _Known, token: int, row: int) -> None:
        self._put([self._guessed[row]])
        super()._add_guess(followed, token, row)

    def _decode(self) -> None:
        super()._decode()
        if self._batch.outputs:
            self._guessed = self._head.states(self._batch.outputs)

    def _put(self, states: Iterable[States]) -> None:
        """Let the batch's next tokens have ``states``."""
        assert self._batch.states is not None
        for place, state in enumerate(states, self._batch.size):
            self._batch.states[place] = state

"""One step: the sequences that take part, and the cells to compute for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from server.engine.adapters import Adapters
from server.engine.batch import Batch
from server.engine.sequence import SequenceState


@dataclass(slots=True)
class Work:
    """Compute ``count`` cells of ``sequence``, and ``drafts`` guessed tokens behind them."""

    sequence: SequenceState
    count: int
    drafts: int = 0

    def add_to(self, batch: Batch) -> int:
        """Put the work into ``batch``; returns its first row of logits.

        Logits are wanted for the last cell of a sequence and every draft, or for every cell of a
        prompt that is scored.
        """
        state = self.sequence
        assert state.sequence_id is not None
        start, end = state.computed, state.computed + self.count
        if state.scores_prompt and state.in_prompt:
            logits_from = 0
        elif end < state.spans.length:
            logits_from = self.count
        else:
            logits_from = self.count - 1
        row = state.spans.add_to(batch, state.sequence_id, start, end, logits_from)
        if state.drafts:
            drafts = np.array(state.drafts, dtype=np.int32)
            batch.add(state.sequence_id, drafts, state.spans.position(end), 0)
        return row


@dataclass(slots=True)
class Step:
    """The work of a step, all with the same ``adapters``.

    ``preempted`` sequences gave way and will resume later.
    """

    adapters: Adapters | None = None
    decodes: list[Work] = field(default_factory=list)
    prefills: list[Work] = field(default_factory=list)
    preempted: list[SequenceState] = field(default_factory=list)

    def __iter__(self) -> Iterator[Work]:
        """All work, decodes first."""
        return iter((*self.decodes, *self.prefills))

    @property
    def tokens(self) -> int:
        """The number of tokens that the step computes."""
        return sum(work.count + work.drafts for work in self)

    @property
    def is_decode_only(self) -> bool:
        """Whether it computes one token of each of its sequences: no prompts and no drafts."""
        return self.tokens == len(self.decodes)

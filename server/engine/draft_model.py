"""A second, smaller model of the same vocabulary that guesses what the first will say."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.engine.backend import Backend
from server.engine.batch import Batch
from server.engine.cache.cache_of_memory import prefix_cache
from server.engine.scheduling.pace import LEAST_CHUNK, Pace
from server.engine.sequence import SequenceState

# The most unread cells of a sequence that can still draft; with more, it is read on first.
MOST_UNREAD = LEAST_CHUNK
# Weight of the newest value in the average time of a guess, as in `Pace`.
_SMOOTHING = 0.2


@dataclass(eq=False, slots=True)
class _Followed:
    """A running sequence in the draft model's cells, under an id of its own.

    The first ``computed`` cells are the sequence's; ``guesses`` lie in the cells behind them.
    """

    state: SequenceState
    sequence_id: int
    computed: int
    guesses: list[int] = field(default_factory=list)

    @property
    def unread(self) -> int:
        """How many of the sequence's cells are still to be computed."""
        return self.state.spans.length - self.computed


class DraftModel:
    """Follows running sequences in KV cells of its own and guesses their next tokens.

    Its prefix cache works as the engine's: what one sequence has read serves the next one that
    begins alike. ``token_seconds`` is the time that guessing a token takes, an average of the last
    steps, 0 before the first guess. ``started`` is the monotonic time at which its work in progress
    began, else None.
    """

    def __init__(
        self, backend: Backend, *, vocabulary_size: int, inter_token_budget: float
    ) -> None:
        """``vocabulary_size`` is that of the model that it drafts for.

        Reading a part of a prompt takes ``inter_token_budget`` seconds at most.
        """
        self.token_seconds = 0.0
        self.started: float | None = None
        self._backend = backend
        self._tokens = min(vocabulary_size, backend.vocabulary_size)
        self._budget = inter_token_budget
        self._pace = Pace(inter_token_budget)
        self._batch = Batch(backend.batch_size)
        self._cache = prefix_cache(
            backend, cells=backend.kv_cells, sequence_ids=backend.sequence_ids
        )
        self._followed: dict[int, _Followed] = {}

    @property
    def read_seconds(self) -> float:
        """Seconds that reading a token of a prompt takes, 0 before the first prompt."""
        return self._pace.prompt_token

    def set_threads(self, threads: int) -> None:
        """Use ``threads`` threads from now on."""
        self._backend.set_threads(threads)

    def follow(self, running: Iterable[SequenceState]) -> None:
        """Forget all sequences but ``running``; what was read of them stays cached."""
        orders = {state.order for state in running}
        for order in self._followed.keys() - orders:
            self._end(self._followed.pop(order))

    def unread(self, state: SequenceState) -> int | None:
        """How many cells have to be computed before a guess; None where it cannot follow.

        It cannot read images, nor tokens that only the larger model has.
        """
        followed = self._followed.get(state.order)
        if followed is not None:
            self._catch_up(followed)
            if followed.unread > 0:
                return followed.unread if self._reads(state, followed.computed) else None
            # Its last token is needed again, and what is shared with others cannot be cut.
            self._end(self._followed.pop(state.order))
        if not self._reads(state, 0):
            return None
        keys = state.spans.keys()
        begun = self._cache.begin(state.scope, keys, len(keys) - 1)
        if begun is None:
            return None
        followed = self._followed[state.order] = _Followed(state, *begun)
        return followed.unread

    def read(self, state: SequenceState) -> None:
        """Compute a part of what is unread, but for the last token.

        Raises:
            NoCellsLeft, DecodeFailed: it cannot be computed.
        """
        followed = self._followed[state.order]
        most = self._pace.prefill_tokens_within(self._budget, self._batch.capacity)
        count = min(followed.unread - 1, most)
        if not self._cache.make_room(count):
            return
        self._batch.clear()
        self._add(followed, count, logits=False)
        started = time.monotonic()
        self._decode()
        self._pace.observe(
            sequences=0,
            decode_tokens=0,
            prefill_tokens=count,
            seconds=time.monotonic() - started,
        )
        self._computed(followed, count)

    def guess(self, wanted: Sequence[tuple[SequenceState, int]]) -> dict[int, list[int]]:
        """Up to so many tokens for each of the sequences, by their orders.

        At most `MOST_UNREAD` cells of each may be `unread`. Of those that do not fit the draft
        model's cells, nothing is guessed. What ends an answer ends its draft.

        Raises:
            NoCellsLeft, DecodeFailed: they cannot be computed.
        """
        started = time.monotonic()
        self._batch.clear()
        going: list[tuple[_Followed, int]] = []
        room = self._batch.capacity
        needed = 0
        for state, most in wanted:
            followed = self._followed[state.order]
            cells = followed.unread + most - 1
            if followed.unread <= room and self._cache.make_room(needed + cells):
                room -= followed.unread
                needed += cells
                self._add(followed, followed.unread, logits=True)
                going.append((followed, most))
        drafts: dict[int, list[int]] = {followed.state.order: [] for followed, _ in going}
        while going:
            self._decode()
            rows = self._backend.logits(len(going))[:, : self._tokens]
            guesses = np.argmax(rows, axis=1).tolist()
            again = []
            for (followed, most), token in zip(going, guesses, strict=True):
                draft = drafts[followed.state.order]
                if draft:
                    self._cache.grow(followed.sequence_id, 1)
                    followed.guesses.append(draft[-1])
                else:
                    self._computed(followed, followed.unread)
                draft.append(token)
                if len(draft) < most and not self._backend.is_end_of_generation(token):
                    again.append((followed, most))
            going = again
            self._batch.clear()
            for followed, _ in going:
                order, place = followed.state.order, followed.computed + len(followed.guesses)
                last = np.array(drafts[order][-1:], dtype=np.int32)
                self._batch.add(followed.sequence_id, last, place, 0)
        if tokens := sum(map(len, drafts.values())):
            taken = (time.monotonic() - started) / tokens
            before = self.token_seconds or taken
            self.token_seconds = before + _SMOOTHING * (taken - before)
        return drafts

    def _add(self, followed: _Followed, count: int, *, logits: bool) -> None:
        """Put the next ``count`` cells of a sequence into the batch."""
        start = followed.computed
        keys = followed.state.spans.keys(start, start + count)
        self._batch.add(followed.sequence_id, keys, start, count - logits)

    def _decode(self) -> None:
        self.started = time.monotonic()
        try:
            self._backend.decode(self._batch)
        finally:
            self.started = None

    def _computed(self, followed: _Followed, count: int) -> None:
        """Note that the next ``count`` cells of a sequence were computed."""
        self._cache.grow(followed.sequence_id, count)
        followed.computed += count
        if followed.computed <= followed.state.prompt_length:
            self._cache.share(followed.sequence_id, followed.state.spans.keys(0, followed.computed))

    def _catch_up(self, followed: _Followed) -> None:
        """Keep the guesses that were right, and free the cells of the others."""
        start, guesses = followed.computed, followed.guesses
        said = followed.state.spans.keys(start, start + len(guesses))
        right = 0
        while right < len(said) and said[right] == guesses[right]:
            right += 1
        if right < len(guesses):
            self._cache.grow(followed.sequence_id, right - len(guesses))
        followed.computed += right
        followed.guesses = []

    def _end(self, followed: _Followed) -> None:
        self._catch_up(followed)
        keys = followed.state.spans.keys(0, followed.computed)
        self._cache.finish(followed.sequence_id, keys)

    def _reads(self, state: SequenceState, start: int) -> bool:
        """Whether it can read the sequence's cells from ``start`` on."""
        keys = state.spans.keys(start)
        return not len(keys) or (int(keys.min()) >= 0 and int(keys.max()) < self._tokens)

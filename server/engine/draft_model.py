"""A second, smaller model of the same vocabulary that guesses what the first will say."""

from __future__ import annotations

import time

from server.engine.backend import Backend
from server.engine.batch import Batch
from server.engine.cache.cache_of_memory import prefix_cache
from server.engine.drafter import Drafter, Followed
from server.engine.scheduling.pace import LEAST_CHUNK, Pace
from server.engine.sequence import SequenceState


class DraftModel(Drafter[Followed]):
    """Follows running sequences in KV cells of its own and guesses their next tokens.

    Its prefix cache works as the engine's: what one sequence has read serves the next one that
    begins alike.
    """

    name = "the draft model"
    most_unread = LEAST_CHUNK

    def __init__(
        self, backend: Backend, *, vocabulary_size: int, inter_token_budget: float
    ) -> None:
        """``vocabulary_size`` is that of the model that it drafts for.

        Reading a part of a prompt takes ``inter_token_budget`` seconds at most.
        """
        tokens = min(vocabulary_size, backend.vocabulary_size)
        super().__init__(backend, Batch(backend.batch_size), tokens=tokens)
        self._budget = inter_token_budget
        self._pace = Pace(inter_token_budget)
        self._cache = prefix_cache(
            backend, cells=backend.kv_cells, sequence_ids=backend.sequence_ids
        )

    @property
    def read_seconds(self) -> float:
        """Seconds that reading a token of a prompt takes, 0 before the first prompt."""
        return self._pace.prompt_token

    def unread(self, state: SequenceState) -> int | None:
        """How many cells have to be computed before a guess; None where it cannot follow.

        It cannot read tokens that only the larger model has.
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
        followed = self._followed[state.order] = Followed(state, *begun)
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

    def _make_room(self, cells: int) -> bool:
        return self._cache.make_room(cells)

    def _grew(self, followed: Followed, cells: int) -> None:
        self._cache.grow(followed.sequence_id, cells)

    def _computed(self, followed: Followed, count: int) -> None:
        super()._computed(followed, count)
        if followed.computed <= followed.state.prompt_length:
            self._cache.share(followed.sequence_id, followed.state.spans.keys(0, followed.computed))

    def _catch_up(self, followed: Followed) -> None:
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

    def _end(self, followed: Followed) -> None:
        """Free its id; what was read of it stays cached."""
        self._catch_up(followed)
        keys = followed.state.spans.keys(0, followed.computed)
        self._cache.finish(followed.sequence_id, keys)

    def _reads(self, state: SequenceState, start: int) -> bool:
        """Whether it can read the sequence's cells from ``start`` on."""
        keys = state.spans.keys(start)
        return not len(keys) or int(keys.max()) < self._tokens

"""Speculation without a second model: guess the next tokens from text that is already there.

Guesses (a *draft*) are decoded together with the last token in one step. Each row is then sampled
by the sequence's own sampler, and the draft counts as far as it agrees: the answer has exactly the
distribution it would have without drafts, and a greedy or seeded answer the very same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from server.engine.sampling.sampler import NoTokenLeft, Sampler

_NGRAM_SIZES = (6, 3)


class Draft(NamedTuple):
    """Guessed tokens; ``predicted`` where they come from the request's ``prediction``."""

    tokens: list[int]
    predicted: bool


class NgramIndex:
    """Finds where a token sequence last repeated its own end; adding a token is O(1).

    Keys are hashes of n-grams, so a find is checked against the tokens themselves. What is known of
    the tokens it begins with is shared by its forks.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.tokens: list[int] = []
        self._next: dict[int, int] = {}
        for token in tokens:
            self.add(token)
        self._shared, self._next = self._next, {}

    def fork(self) -> NgramIndex:
        """An independent copy of one that nothing was added to yet."""
        assert not self._next
        twin = NgramIndex()
        twin.tokens = self.tokens.copy()
        twin._shared = self._shared
        return twin

    def add(self, token: int) -> None:
        """Append ``token``; the n-grams before it now have a continuation and can be found."""
        end = len(self.tokens)
        for size in _NGRAM_SIZES:
            if end >= size:
                self._next[hash(tuple(self.tokens[-size:]))] = end
        self.tokens.append(token)

    def find(self, recent: Sequence[int]) -> int | None:
        """The position after the latest n-gram that equals the end of ``recent``, longest first."""
        for size in _NGRAM_SIZES:
            if len(recent) >= size:
                ngram = list(recent[-size:])
                key = hash(tuple(ngram))
                position = self._next.get(key, self._shared.get(key))
                if position is not None and self.tokens[position - size : position] == ngram:
                    return position
        return None


class PromptLookup:
    """Drafts for one sequence from its prompt, its own answer, and the request's prediction.

    The prediction is followed from its beginning as long as the answer agrees with it. After a
    mismatch it is taken up again where the answer's latest tokens occur in it.
    """

    def __init__(self, prompt_tokens: Iterable[int], prediction: Iterable[int] = ()) -> None:
        self._text = NgramIndex(prompt_tokens)
        self._prediction = NgramIndex(prediction)
        self._written = 0
        self._place: int | None = 0

    def fork(self) -> PromptLookup:
        """The same for another answer; nothing was accepted yet."""
        twin = PromptLookup(())
        twin._text, twin._prediction = self._text.fork(), self._prediction
        return twin

    def accept(self, token: int) -> None:
        """Append ``token`` to the answer."""
        self._text.add(token)
        self._written += 1
        predicted = self._prediction.tokens
        if self._place is not None and self._place < len(predicted):
            if predicted[self._place] == token:
                self._place += 1
                return
            self._place = None
        if predicted:
            longest = min(self._written, _NGRAM_SIZES[0])
            self._place = self._prediction.find(self._text.tokens[-longest:])

    def draft(self, max_tokens: int) -> Draft:
        """At most ``max_tokens`` guesses for what comes next; empty where nothing matches."""
        if max_tokens <= 0:
            return Draft([], predicted=False)
        if self._place is not None and self._place < len(self._prediction.tokens):
            following = self._prediction.tokens[self._place : self._place + max_tokens]
            return Draft(following, predicted=True)
        text = self._text.tokens
        position = self._text.find(text[-_NGRAM_SIZES[0] :])
        if position is None:
            return Draft([], predicted=False)
        # The text since the match repeats the text before it, so go on with that period.
        period = len(text) - position
        guesses = [text[position + i % period] for i in range(max_tokens)]
        return Draft(guesses, predicted=False)


class DraftPolicy:
    """How many tokens to draft for one sequence, from what drafting gains and costs.

    With ``n`` active sequences and one more row costing ``row_cost`` of a one-row step, an accepted
    token is worth an ``n``-th of a step of ``1 + row_cost * (n - 1)``. The ``i``-th draft token is
    accepted with probability ``acceptance ** i`` and is drafted while that is worth its row. When
    not even the first is, drafting pauses, each time twice as long, and is then tried afresh.
    """

    # One step then computes 16 tokens, as many as llama.cpp multiplies at once on a processor.
    LONGEST = 15
    _FIRST_PAUSE = 32
    _LONGEST_PAUSE = 512
    _MEMORY = 0.9
    _PRIOR_HITS = 3.0
    _PRIOR_TRIALS = 4.0

    def __init__(self) -> None:
        self._hits = self._PRIOR_HITS
        self._trials = self._PRIOR_TRIALS
        self._pause = self._FIRST_PAUSE
        self._paused_for = 0

    @property
    def acceptance(self) -> float:
        """Share of checked draft tokens that were right, recent ones counting more."""
        return self._hits / self._trials

    def draft_length(self, active: int, row_cost: float) -> int:
        """How many tokens to draft for this step, beside ``active`` sequences, itself included."""
        if self._paused_for > 0:
            self._paused_for -= 1
            return 0
        break_even = active * row_cost / (1 + row_cost * (active - 1))
        if self.acceptance < break_even:
            if break_even >= self._PRIOR_HITS / self._PRIOR_TRIALS:
                return 0  # by load alone: no reason to think less of this sequence's drafts
            self._paused_for = self._pause
            self._pause = min(2 * self._pause, self._LONGEST_PAUSE)
            self._hits, self._trials = self._PRIOR_HITS, self._PRIOR_TRIALS
            return 0
        if self.acceptance >= 1:
            return self.LONGEST
        return min(self.LONGEST, int(math.log(break_even) / math.log(self.acceptance)))

    def record(self, drafted: int, accepted: int) -> None:
        """Learn from a draft. Only the tokens up to the first wrong one were put to the test."""
        tested = accepted + (accepted < drafted)
        self._hits = self._MEMORY * self._hits + accepted
        self._trials = self._MEMORY * self._trials + tested
        if drafted and accepted == drafted:
            self._pause = self._FIRST_PAUSE


class Rules(Protocol):
    """What `verify` needs of a grammar matcher."""

    def allowed(self) -> NDArray[np.uint32]:
        """Which tokens may come next, one bit each."""

    def accept(self, token: int) -> None:
        """Go on by ``token``."""


class Verified(NamedTuple):
    """The tokens of a step, at least one, and how many of them the draft had guessed."""

    tokens: list[int]
    accepted: int


def verify(
    rows: NDArray[np.float32],
    draft: Sequence[int],
    sampler: Sampler,
    rules: Rules | None = None,
    *,
    is_last: Callable[[int], bool] = lambda _: False,
) -> Verified:
    """Sample each row until the draft disagrees; sampler and rules accept every token returned.

    ``rows`` has shape (len(draft) + 1, n_vocab): row ``i`` holds the logits after ``draft[:i]``.
    Sampling ends early after a token that ``is_last``, so that no random number is drawn for a
    token that never comes. Raises NoTokenLeft where no token can follow the very first row; where
    that happens further on, the tokens before it are returned.
    """
    tokens: list[int] = []
    accepted = 0
    for index, row in enumerate(rows):
        try:
            token = sampler.sample(row, None if rules is None else rules.allowed())
        except NoTokenLeft:
            if tokens:
                break
            raise
        sampler.accept(token)
        if rules is not None:
            rules.accept(token)
        tokens.append(token)
        guessed = index < len(draft) and draft[index] == token
        accepted += guessed
        if not guessed or is_last(token):
            break
    return Verified(tokens, accepted)

"""Speculation: guess the next tokens, from text that is already there or by a second model.

The guesses, a *draft*, are decoded together with the last token in one step. The sequence's own
sampler then samples each row, and the draft counts as far as it agrees. An answer therefore has
exactly the distribution it would have without drafts, and a greedy or seeded one the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from server.engine.sampling.sampler import NoTokenLeft, Sampler
from server.engine.spans import Keys, Spans, TokenSpan

# Longer n-grams are looked up first. The sizes are a choice: a match of 6 tokens is rarely chance,
# one of 3 finds more repetitions.
_NGRAM_SIZES = (6, 3)
_LONGEST_NGRAM = max(_NGRAM_SIZES)


class Draft(NamedTuple):
    """Guessed tokens; ``predicted`` where they come from the request's ``prediction``."""

    tokens: list[int]
    predicted: bool


class NgramIndex:
    """Finds where a sequence last repeated its own end; indexing one more token is O(1).

    It covers cells from ``start`` on. Entries are hashes of n-grams, so `find` compares the match
    with the sequence itself. Forks share what was indexed when the index was made.
    """

    def __init__(self, text: Spans, start: int = 0) -> None:
        self._text = text
        self._start = self._indexed = start
        self._next: dict[int, int] = {}
        self.catch_up()
        self._shared, self._next = self._next, {}

    def fork(self, text: Spans) -> NgramIndex:
        """An independent index of ``text``, a copy of the text that this one has indexed."""
        assert not self._next
        twin = NgramIndex(text, text.length)
        twin._start, twin._shared = self._start, self._shared
        return twin

    def catch_up(self) -> None:
        """Index the tokens that were appended since the last call.

        An n-gram can be found once a token follows it.
        """
        end = self._text.length
        first = max(self._start, self._indexed - _LONGEST_NGRAM)
        raw = self._text.keys(first, end).tobytes()
        for place in range(self._indexed, end):
            stop = 4 * (place - first)
            for size in _NGRAM_SIZES:
                if place - self._start >= size:
                    self._next[hash(raw[stop - 4 * size : stop])] = place
        self._indexed = end

    def find(self, recent: Keys) -> int | None:
        """The cell after the latest n-gram that equals the end of ``recent``, longest first."""
        for size in _NGRAM_SIZES:
            if len(recent) >= size:
                ngram = recent[-size:].tobytes()
                key = hash(ngram)
                place = self._next.get(key, self._shared.get(key))
                if place is not None and self._text.keys(place - size, place).tobytes() == ngram:
                    return place
        return None


class PromptLookup:
    """Drafts for one sequence from its prompt, its own answer, and the request's prediction.

    The prediction is followed from its beginning while the answer agrees with it. After a mismatch
    it is resumed where the answer's latest tokens occur in it.
    """

    def __init__(
        self, text: Spans, prediction: Sequence[int] = (), *, prompt_too: bool = True
    ) -> None:
        """``text`` is the sequence, so far its prompt.

        With ``prompt_too`` false, only the prediction and the answer itself are looked up.
        """
        self._text = text
        self._answer_start = self._followed = text.length
        self._start = 0 if prompt_too else text.length
        self._index = NgramIndex(text, self._start)
        self._prediction = Spans([TokenSpan(prediction)])
        self._prediction_index = NgramIndex(self._prediction)
        # The cell of the prediction that should come next; None after a mismatch.
        self._place: int | None = 0

    def fork(self, text: Spans) -> PromptLookup:
        """The same for another answer's sequence; neither has an answer yet."""
        twin = PromptLookup(text, prompt_too=False)
        twin._start, twin._index = self._start, self._index.fork(text)
        twin._prediction, twin._prediction_index = self._prediction, self._prediction_index
        return twin

    def draft(self, max_tokens: int) -> Draft:
        """At most ``max_tokens`` guesses for what comes next; empty where nothing matches."""
        if max_tokens <= 0:
            return Draft([], predicted=False)
        if self._prediction.length:
            self._follow_prediction()
            if self._place is not None and self._place < self._prediction.length:
                end = min(self._prediction.length, self._place + max_tokens)
                return Draft(self._prediction.keys(self._place, end).tolist(), predicted=True)
        self._index.catch_up()
        end = self._text.length
        place = self._index.find(self._text.keys(max(self._start, end - _LONGEST_NGRAM)))
        if place is None:
            return Draft([], predicted=False)
        # The text since the match repeats the text before it, so it is continued with that period.
        period = self._text.keys(place, min(end, place + max_tokens)).tolist()
        repeated = (period[i % len(period)] for i in range(max_tokens))
        # An image cannot be generated.
        return Draft([*takewhile(lambda key: key >= 0, repeated)], predicted=False)

    def _follow_prediction(self) -> None:
        """Move the place in the prediction by the tokens appended since the last call."""
        end = self._text.length
        for cell in range(self._followed, end):
            token = self._text.keys(cell, cell + 1)
            if self._place is not None and self._place < self._prediction.length:
                if self._prediction.keys(self._place, self._place + 1) == token:
                    self._place += 1
                    continue
                self._place = None
            recent = self._text.keys(max(self._answer_start, cell + 1 - _LONGEST_NGRAM), cell + 1)
            self._place = self._prediction_index.find(recent)
        self._followed = end


class TokenRules(Protocol):
    """The part of a grammar matcher that `verified` uses."""

    def allowed(self) -> NDArray[np.uint32] | None:
        """The tokens that may come next, one bit each; None: every token."""

    def accept(self, token: int) -> None:
        """Advance by ``token``."""

    def forced_tokens(self) -> list[int]:
        """The tokens that must come next."""


def verified(
    rows: NDArray[np.float32],
    draft: Sequence[int],
    sampler: Sampler,
    rules: TokenRules | None = None,
    *,
    takes_forced: bool = False,
    forced: list[int] | None = None,
) -> Iterator[tuple[int, bool]]:
    """Sample row after row until the draft disagrees; yields at least one (token, was guessed).

    ``rows`` has shape (len(draft) + 1, n_vocab): row ``i`` holds the logits after ``draft[:i]``.
    Sampler and rules have accepted a token when it is yielded. The caller appends it to the history
    that the sampler reads, or stops iterating: no random number is drawn for a token that never
    comes. With ``takes_forced``, the caller appends the tokens that the rules force behind those
    that it gets, so none of them is sampled: a draft may contain them, and ends where it differs.
    Without, forced tokens come here, each with a row of its own, and are not sampled either:
    ``forced`` has those that come next, and is to be handed to the next call.

    Raises:
        NoTokenLeft: no token can follow the first row. Where none can follow a later one, the
            iteration ends.
    """
    forced = [] if forced is None else forced
    for index, row in enumerate(rows):
        guess = draft[index] if index < len(draft) else None
        sampled = not forced
        if forced:
            token = forced.pop(0)
            if takes_forced and token != guess:
                return
        else:
            try:
                token = sampler.sample(row, None if rules is None else rules.allowed())
            except NoTokenLeft:
                if index:
                    return
                raise
        sampler.accept(token)
        if rules is not None:
            rules.accept(token)
            if sampled and not takes_forced:
                forced += rules.forced_tokens()
        yield token, token == guess
        if token != guess:
            return
        if takes_forced and sampled and rules is not None:
            forced = rules.forced_tokens()

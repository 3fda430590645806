"""Penalties on tokens that a sequence already contains."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from server.core.sampling import Sampling
from server.engine.spans import Keys, Spans

# With the default base the penalty is then 1e15 times the multiplier: nothing larger has an effect.
_DRY_LONGEST_MATCH = 64

Logits = NDArray[np.float32]

_NO_IDS = np.empty(0, dtype=np.intp)


def _last(history: Spans, window: int) -> Keys:
    """The keys of the last ``window`` cells, of all where it is negative."""
    return history.keys(max(0, history.length - window) if window >= 0 else 0)


class TokenCounts:
    """Counts each token among the last ``window`` tokens, among all where it is negative.

    Keeps the distinct tokens and their counts as parallel arrays, so that adding one is O(1).
    """

    def __init__(self, window: int, tokens: Iterable[int] = ()) -> None:
        self._window = window
        self._recent: deque[int] = deque()
        self._slots: dict[int, int] = {}
        self._ids = np.zeros(64, dtype=np.intp)
        self._counts = np.zeros(64, dtype=np.float32)
        for token in tokens:
            self.add(token)

    @property
    def ids(self) -> NDArray[np.intp]:
        """The distinct tokens in the window."""
        return self._ids[: len(self._slots)]

    @property
    def counts(self) -> Logits:
        """How often each of `ids` occurs."""
        return self._counts[: len(self._slots)]

    def add(self, token: int) -> None:
        """Count ``token`` and discount the one that leaves the window."""
        if self._window == 0:
            return
        slot = self._slots.get(token)
        if slot is None:
            slot = self._slots[token] = len(self._slots)
            if slot == self._ids.size:
                self._ids = np.resize(self._ids, 2 * slot)
                self._counts = np.resize(self._counts, 2 * slot)
            self._ids[slot] = token
            self._counts[slot] = 0
        self._counts[slot] += 1
        if self._window > 0:
            self._recent.append(token)
            if len(self._recent) > self._window:
                self._remove(self._recent.popleft())

    def _remove(self, token: int) -> None:
        slot = self._slots[token]
        self._counts[slot] -= 1
        if self._counts[slot] > 0:
            return
        del self._slots[token]
        last = len(self._slots)
        if slot != last:
            moved = int(self._ids[last])
            self._slots[moved] = slot
            self._ids[slot] = moved
            self._counts[slot] = self._counts[last]


class Penalties:
    """Repeat, frequency and presence penalties of one sequence.

    As in llama.cpp, ``repeat_penalty`` applies to tokens among the last ``repeat_last_n`` (default
    64) of prompt and answer: a positive logit is divided by it, a negative one multiplied. As
    OpenAI defines them (https://platform.openai.com/docs/guides/text-generation),
    ``frequency_penalty`` times a token's count and ``presence_penalty`` once are subtracted. They
    count the answer's tokens only: all of them, or the last ``repeat_last_n`` where the request
    sets it.
    """

    def __init__(self, sampling: Sampling, history: Spans) -> None:
        """``history`` is the sequence so far, its prompt."""
        window = sampling.repeat_last_n
        self._repeat = sampling.real("repeat_penalty")
        self._frequency = sampling.real("frequency_penalty")
        self._presence = sampling.real("presence_penalty")
        self._seen: TokenCounts | None = None
        self._written: TokenCounts | None = None
        if self._repeat != 1.0:
            reach = sampling.whole("repeat_last_n")
            keys = _last(history, reach)
            self._seen = TokenCounts(reach, keys[keys >= 0].tolist())  # an image has no tokens
        if self._frequency or self._presence:
            self._written = TokenCounts(-1 if window is None else window)

    @property
    def active(self) -> bool:
        """Whether any penalty can change a logit."""
        return self._seen is not None or self._written is not None

    @property
    def ids(self) -> NDArray[np.intp]:
        """The tokens whose logits `apply` may change, possibly with duplicates."""
        counts = (self._seen, self._written)
        return np.concatenate([_NO_IDS, *(count.ids for count in counts if count is not None)])

    def accept(self, token: int) -> None:
        """Count a token of the answer."""
        if self._seen is not None:
            self._seen.add(token)
        if self._written is not None:
            self._written.add(token)

    def apply(self, logits: Logits) -> None:
        """Change ``logits`` of shape (n_vocab,) in place."""
        if self._seen is not None:
            ids = self._seen.ids
            found = logits[ids]
            logits[ids] = np.where(found > 0, found / self._repeat, found * self._repeat)
        if self._written is not None:
            counts = self._written.counts
            logits[self._written.ids] -= self._frequency * counts + self._presence


class Dry:
    """DRY: penalises tokens that would lengthen a repetition, by its length so far.

    Where the sequence's last ``length`` tokens occurred before, the token that followed them there
    loses ``multiplier * base ** (length - allowed_length)``. A match does not extend across a
    breaker token, and breakers are never penalised. Formula and defaults are llama.cpp's. Matches
    longer than 64 tokens count as 64, where the penalty is a ban already. A step takes one
    vectorised comparison over the window and a look at its matches.
    """

    def __init__(self, sampling: Sampling, history: Spans, breakers: Collection[int]) -> None:
        """``history`` is the sequence, which grows elsewhere and is read for every token."""
        self._multiplier = sampling.real("dry_multiplier")
        self._base = sampling.real("dry_base")
        self._allowed_length = sampling.whole("dry_allowed_length")
        self._window = sampling.whole("dry_penalty_last_n")
        self._breakers = frozenset(breakers)
        self._history = history

    @property
    def active(self) -> bool:
        """Whether DRY can change a logit."""
        return self._multiplier != 0.0 and self._window != 0

    def penalties(self) -> tuple[NDArray[np.intp], Logits]:
        """The tokens that would lengthen a repetition, and what their logits lose."""
        lengths = self._repetitions() if self.active else {}
        ids = np.fromiter(lengths.keys(), dtype=np.intp)
        excess = np.fromiter(lengths.values(), dtype=np.float64) - self._allowed_length
        with np.errstate(over="ignore"):
            losses = self._multiplier * np.power(self._base, excess)
        return ids, np.minimum(losses, np.finfo(np.float32).max).astype(np.float32)

    def _repetitions(self) -> dict[int, int]:
        """The tokens that would continue a repetition, each with the longest length so far."""
        history = _last(self._history, self._window)
        end = history.size - 1
        longest: dict[int, int] = {}
        matches = np.flatnonzero(history[:-1] == history[-1:])
        length = 0
        while matches.size and length < _DRY_LONGEST_MATCH:
            if int(history[end - length]) in self._breakers:
                break
            length += 1
            if length >= self._allowed_length:
                followers = np.unique(history[matches + 1]).tolist()
                longest.update((token, length) for token in followers)
            matches = matches[matches >= length]
            matches = matches[history[matches - length] == history[end - length]]
        return {
            token: n
            for token, n in longest.items()
            if token >= 0 and token not in self._breakers  # an image cannot be generated
        }

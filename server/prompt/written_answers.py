"""Puts what the model wrote back into later prompts, token by token.

A conversation comes back as text, and a tokenizer may cut a text into other tokens than the model
wrote. From the first different token on, nothing that is cached fits. So the tokens of answers are
kept for a while, and where a later prompt says the same as one of them, it gets those tokens.

Tokens say the same if their bytes are the same and they have the same special tokens in the same
places. So no text of a request can become a special token by this.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.core.vocabulary import Vocabulary

Tokens = NDArray[np.int32]

# How far before an answer the special token may be that its turn begins with, in tokens; a choice.
_LONGEST_OPENING = 32
# A special token is this byte and its id. No text in UTF-8 has this byte; a token that is not text
# may be it, and is told apart, since no id has four of them.
_MARK = b"\xff"
_MARK_IN_TEXT = 5 * _MARK
# An answer is looked up by its opening and so many bytes more, so that few have to be compared.
_KEY_BYTES = 2


@dataclass(frozen=True, slots=True)
class _Said:
    """Tokens, what they say, and where in that each token ends."""

    tokens: Tokens
    said: bytes
    ends: NDArray[np.int64]


class WrittenAnswers:
    """The last answers of one model, ``most_tokens`` tokens at most.

    `remember` may be called from any thread, `put_back` from one.
    """

    def __init__(self, vocabulary: Vocabulary, *, most_tokens: int) -> None:
        self._vocabulary = vocabulary
        self._special = frozenset(token.id for token in vocabulary.special_tokens)
        self._most_tokens = most_tokens
        self._kept_tokens = 0
        self._new: deque[tuple[CacheScope, Tokens, int]] = deque()
        # Oldest first, by scope, length of the opening and what it says.
        self._answers: OrderedDict[tuple[CacheScope, int, bytes], _Said] = OrderedDict()
        self._by_key: dict[tuple[CacheScope, bytes], dict[bytes, _Said]] = {}
        # How many answers have each opening: what comes before an answer in its turn.
        self._openings: dict[CacheScope, Counter[bytes]] = {}

    def remember(self, scope: CacheScope, tokens: Tokens, prompt_length: int) -> None:
        """Keep the answer that ``tokens`` have after ``prompt_length`` tokens of prompt.

        Nothing is kept if no special token is near the prompt's end: where the answer's turn begins
        could not be told in another prompt.
        """
        first = max(0, prompt_length - _LONGEST_OPENING)
        near = tokens[first:prompt_length].tolist()
        special = [place for place, token in enumerate(near) if token in self._special]
        if special and len(tokens) > prompt_length:
            start = first + special[-1]
            self._new.append((scope, tokens[start:].copy(), prompt_length - start))

    def put_back(self, scope: CacheScope, tokens: list[int]) -> list[int]:
        """``tokens`` of a prompt, with those of answers wherever they say the same."""
        self._take_new()
        openings = self._openings.get(scope)
        if not openings:
            return tokens
        first = next((i for i, token in enumerate(tokens) if token in self._special), len(tokens))
        prompt = self._said(np.array(tokens[first:], dtype=np.int32))
        starts = prompt.ends - np.diff(prompt.ends, prepend=0)
        result, done = tokens[:first], 0
        for place in np.flatnonzero(np.isin(prompt.tokens, [*self._special])).tolist():
            if place < done:
                continue
            start = int(starts[place])
            answer, length = self._longest(scope, openings, prompt.said, start)
            if answer is None:
                continue
            alike = int(np.searchsorted(prompt.ends, start + length, side="right"))
            # Both have a token that ends there.
            common = np.intersect1d(answer.ends, prompt.ends[place:alike] - start)
            if not len(common):
                continue
            theirs = int(np.searchsorted(answer.ends, common[-1])) + 1
            mine = int(np.searchsorted(prompt.ends, start + common[-1])) + 1
            result += prompt.tokens[done:place].tolist()
            result += answer.tokens[:theirs].tolist()
            done = mine
        result += prompt.tokens[done:].tolist()
        return result

    def _longest(
        self, scope: CacheScope, openings: Iterable[bytes], said: bytes, start: int
    ) -> tuple[_Said | None, int]:
        """The answer that agrees furthest with ``said[start:]``, and for how many bytes."""
        best, longest = None, 0
        for opening in openings:
            if not said.startswith(opening, start):
                continue
            key = said[start : start + len(opening) + _KEY_BYTES]
            for answer in self._by_key.get((scope, key), {}).values():
                if said.startswith(answer.said[: longest + 1], start):
                    there = said[start : start + len(answer.said)]
                    best, longest = answer, _common_prefix(answer.said, there)
        return best, longest

    def _take_new(self) -> None:
        while self._new:
            scope, tokens, opening_length = self._new.popleft()
            answer = self._said(tokens)
            opening = int(answer.ends[opening_length - 1])
            if len(answer.said) < opening + _KEY_BYTES:
                continue
            self._drop(scope, opening, answer.said)  # what was written last is cached most likely
            self._answers[scope, opening, answer.said] = answer
            key = answer.said[: opening + _KEY_BYTES]
            self._by_key.setdefault((scope, key), {})[answer.said] = answer
            self._openings.setdefault(scope, Counter())[key[:opening]] += 1
            self._kept_tokens += len(tokens)
        while self._kept_tokens > self._most_tokens:
            self._drop(*next(iter(self._answers)))

    def _drop(self, scope: CacheScope, opening: int, said: bytes) -> None:
        answer = self._answers.pop((scope, opening, said), None)
        if answer is None:
            return
        self._kept_tokens -= len(answer.tokens)
        key = said[: opening + _KEY_BYTES]
        del self._by_key[scope, key][said]
        if not self._by_key[scope, key]:
            del self._by_key[scope, key]
        openings = self._openings[scope]
        openings[key[:opening]] -= 1
        if not openings[key[:opening]]:
            del openings[key[:opening]]
        if not openings:
            del self._openings[scope]

    def _said(self, tokens: Tokens) -> _Said:
        parts = [
            _MARK + token.to_bytes(4, "little")
            if token in self._special
            else self._vocabulary.piece(token).replace(_MARK, _MARK_IN_TEXT)
            for token in tokens.tolist()
        ]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return _Said(tokens, b"".join(parts), ends)


def _common_prefix(a: bytes, b: bytes) -> int:
    """The number of bytes that ``a`` and ``b`` share at their beginning."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    differ = np.frombuffer(a, np.uint8, length) != np.frombuffer(b, np.uint8, length)
    return int(differ.argmax())

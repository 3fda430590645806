"""Finds answers by what they say, and by the prompt they were written after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]

# An answer is looked up by its opening and so many bytes more, so that few have to be compared.
_KEY_BYTES = 2


@dataclass(frozen=True, slots=True)
class SaidTokens:
    """Tokens, what they say, and where in that each token ends."""

    tokens: Tokens
    said: bytes
    ends: NDArray[np.int64]

    def start(self, place: int) -> int:
        """Where the token at ``place`` begins."""
        return int(self.ends[place - 1]) if place else 0


@dataclass(frozen=True, slots=True, eq=False)
class Answer(SaidTokens):
    """An answer as it was written, with its opening: what comes before it in its turn.

    Attributes:
        opening: The opening, as in ``said``.
        prompt: A digest of the whole prompt, which ends with the opening.
        reply_prefix: The end of the prompt that the reply format reads as part of the answer.
        message: A digest of the answer as a message; None if it says none for certain.
    """

    opening: bytes
    prompt: bytes
    reply_prefix: str
    message: bytes | None

    @property
    def is_findable(self) -> bool:
        """Whether it is long enough to be looked up."""
        return len(self.said) >= len(self.opening) + _KEY_BYTES

    @property
    def beginning(self) -> bytes:
        """What it is looked up by."""
        return self.said[: len(self.opening) + _KEY_BYTES]


class AnswerIndex:
    """Answers of one scope; of those that are alike, the last one counts.

    Attributes:
        openings: How many answers have each opening.
    """

    def __init__(self) -> None:
        self.openings: Counter[bytes] = Counter()
        self._by_beginning: dict[bytes, dict[bytes, Answer]] = {}
        self._by_prompt: dict[bytes, dict[bytes, Answer]] = {}

    def add(self, answer: Answer) -> None:
        """Make ``answer``, which is findable, known."""
        self.openings[answer.opening] += 1
        self._by_beginning.setdefault(answer.beginning, {})[answer.said] = answer
        if answer.message is not None:
            self._by_prompt.setdefault(answer.prompt, {})[answer.message] = answer

    def remove(self, answer: Answer) -> None:
        """Forget ``answer``, which was added."""
        self.openings[answer.opening] -= 1
        if not self.openings[answer.opening]:
            del self.openings[answer.opening]
        _remove(self._by_beginning, answer.beginning, answer.said, answer)
        if answer.message is not None:
            _remove(self._by_prompt, answer.prompt, answer.message, answer)

    def longest(self, said: bytes, start: int) -> tuple[Answer | None, int]:
        """The answer that agrees furthest with ``said[start:]``, and for how many bytes."""
        best, longest = None, 0
        for opening in self.openings:
            if not said.startswith(opening, start):
                continue
            beginning = said[start : start + len(opening) + _KEY_BYTES]
            for answer in self._by_beginning.get(beginning, {}).values():
                if said.startswith(answer.said[: longest + 1], start):
                    there = said[start : start + len(answer.said)]
                    best, longest = answer, _common_prefix(answer.said, there)
        return best, longest

    def after(self, prompt: bytes) -> Mapping[bytes, Answer]:
        """The answers after the prompt with this digest, by their messages."""
        return self._by_prompt.get(prompt, {})


def _remove(
    index: dict[bytes, dict[bytes, Answer]], key: bytes, name: bytes, answer: Answer
) -> None:
    answers = index.get(key, {})
    if answers.get(name) is answer:
        del answers[name]
        if not answers:
            del index[key]


def _common_prefix(a: bytes, b: bytes) -> int:
    """The number of bytes that ``a`` and ``b`` share at their beginning."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    differ = np.frombuffer(a, np.uint8, length) != np.frombuffer(b, np.uint8, length)
    return int(differ.argmax())

"""One sequence of tokens: a prompt and the answer that grows behind it."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.core.request import CacheScope


class TokenBuffer:
    """Token ids with room to grow: appending costs the same at any length."""

    def __init__(self, tokens: Tokens[int]) -> None:
        self._array = np.empty(max(256, len(tokens) + 128), dtype=np.int32)
        self._array[: len(tokens)] = tokens
        self._length = len(tokens)

    def __len__(self) -> int:
        return self._length

    def append(self, token: int) -> None:
        """Add one token at the end."""
        if self._length == len(self._array):
            grown = np.empty(2 * self._length, dtype=np.int32)
            grown[: self._length] = self._array
            self._array = grown
        self._array[self._length] = token
        self._length += 1

    def view(self, start: int = 0, end: int | None = None) -> NDArray[np.int32]:
        """Tokens [start, end) without copying."""
        return self._array[start : self._length if end is None else end]


@dataclass(eq=False, slots=True)
class SequenceState:
    """What the scheduler knows of a sequence.

    ``computed`` of its tokens lie in KV cells under ``sequence_id`` (None: it waits). ``reusable``
    is how many tokens may come from the prefix cache: all but the last, whose logits are needed,
    or none when every position's logits are asked for (``scores_prompt``). ``cached`` is how many
    did at the first admission.
    """

    order: int
    scope: CacheScope
    tokens: TokenBuffer
    prompt_length: int
    scores_prompt: bool = False
    sequence_id: int | None = None
    computed: int = 0
    cached: int | None = None
    preempted: bool = False
    drafts: list[int] = field(default_factory=list)

    @property
    def uncomputed(self) -> int:
        """How many tokens are not in KV cells yet."""
        return len(self.tokens) - self.computed

    @property
    def reusable(self) -> int:
        """How many tokens may come from the prefix cache."""
        return 0 if self.scores_prompt else len(self.tokens) - 1

    @property
    def in_prompt(self) -> bool:
        """Whether part of the prompt is still to be computed."""
        return self.computed < self.prompt_length

"""Rules about lengths: the least tokens of an answer, and the most tokens of its reasoning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from server.engine.sampling.matcher import GrammarMatcher

# Longer than any text that opens or ends reasoning.
_RECENT_BYTES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasoningLimit:
    """The most ``tokens`` of reasoning, the texts around it counted in, and how to cut it short.

    ``openings`` begin reasoning and ``ends`` end it, as bytes of the visible text. ``opened``: the
    prompt has opened it. ``recurs``: it may come back later in the answer; else it comes first or
    never. ``closing`` are the tokens that close it, ``closing_again`` those that close it for good,
    ``skipping`` those that an answer without reasoning begins with.
    """

    tokens: int
    openings: tuple[bytes, ...]
    ends: tuple[bytes, ...]
    opened: bool
    recurs: bool
    closing: tuple[int, ...]
    closing_again: tuple[int, ...]
    skipping: tuple[int, ...]


class Reasoning:
    """Counts the tokens of an answer's reasoning, and says when it has to be closed."""

    def __init__(self, limit: ReasoningLimit) -> None:
        self._limit = limit
        self._inside = limit.opened
        self._over = False
        self._used = 0
        self._outside = 0
        self._recent = b""
        self._closed_once = False

    def first(self) -> tuple[int, ...]:
        """The tokens that an answer must begin with; empty if it may begin as it likes."""
        return self._limit.skipping if self._limit.tokens == 0 else self.due()

    def due(self) -> tuple[int, ...]:
        """The tokens that must close the reasoning now; empty while it may go on."""
        if self._over or not self._inside:
            return ()
        closing = self._limit.closing_again if self._closed_once else self._limit.closing
        return closing if self._used + len(closing) >= self._limit.tokens else ()

    def closes(self) -> None:
        """The tokens that are due come next."""
        self._closed_once = True

    def accept(self, piece: bytes) -> None:
        """Count a token whose visible text is ``piece``."""
        self._recent = (self._recent + piece)[-_RECENT_BYTES:]
        if self._over:
            return
        if self._inside:
            self._used += 1
            if any(end in self._recent for end in self._limit.ends):
                self._leave()
            return
        self._outside += 1
        if any(opening in self._recent for opening in self._limit.openings):
            self._used += self._outside
            self._inside, self._recent = True, b""
        elif not self._limit.recurs:
            begun = self._recent.lstrip()
            self._over = not any(opening.startswith(begun) for opening in self._limit.openings)

    def _leave(self) -> None:
        self._inside, self._outside, self._recent = False, 0, b""
        self._over = not self._limit.recurs


class LengthRules:
    """What may come next by length, beside a grammar if there is one.

    The answer does not end by itself before it has ``min_tokens``: ``ends`` are the tokens that
    would end it. A grammar that leaves nothing but an end goes first. Tokens that close reasoning
    are forced, like those of a grammar.

    ``piece`` gives the visible text of a token.
    """

    def __init__(
        self,
        matcher: GrammarMatcher | None,
        *,
        vocabulary_size: int,
        piece: Callable[[int], bytes],
        min_tokens: int = 0,
        ends: frozenset[int] = frozenset(),
        limit: ReasoningLimit | None = None,
    ) -> None:
        self._matcher = matcher
        self._size = vocabulary_size
        self._piece = piece
        self._min_tokens = min_tokens
        self._ends = ends
        self._limit = limit
        self._reasoning = None if limit is None else Reasoning(limit)
        self._generated = 0
        self._forced: list[int] = []
        self._begins = False
        self.interrupts = False
        if self._reasoning is not None:
            self._force(self._reasoning.first())

    def fork(self) -> LengthRules:
        """The same for another answer; neither has any tokens yet."""
        return LengthRules(
            None if self._matcher is None else self._matcher.fork(),
            vocabulary_size=self._size,
            piece=self._piece,
            min_tokens=self._min_tokens,
            ends=self._ends,
            limit=self._limit,
        )

    def allowed(self) -> NDArray[np.uint32] | None:
        """The tokens that may come next, one bit each; None: every token.

        Raises:
            GrammarError: llguidance cannot continue.
        """
        if self._forced:
            return self._mask_of(self._forced[0])
        allowed = None if self._matcher is None else self._matcher.allowed()
        if self._generated >= self._min_tokens:
            return allowed
        if allowed is None:
            allowed = self._every_token()
        without = allowed.copy()
        for token in self._ends:
            without[token >> 5] &= ~np.uint32(1 << (token & 31))
        return without if without.any() else allowed

    def accept(self, token: int) -> None:
        """Advance by ``token``; `interrupts` says whether it cuts the text before it short.

        Raises:
            GrammarError: the grammar does not allow it.
        """
        self.interrupts = False
        if self._matcher is not None:
            self._matcher.accept(token)
        self._generated += 1
        if self._reasoning is None:
            return
        self._reasoning.accept(self._piece(token))
        if self._forced:
            self.interrupts = self._begins
            self._begins = False
            self._forced.pop(0)
        else:
            self._force(self._reasoning.due())

    def forced_tokens(self) -> list[int]:
        """The tokens that must come next whatever the model prefers; this does not accept them."""
        if self._forced or self._matcher is None:
            return list(self._forced)
        return self._matcher.forced_tokens()

    def valid_prefix(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens`` may come next; this does not accept them."""
        if self._forced:
            pairs = zip(tokens, self._forced, strict=False)
            return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return len(tokens) if self._matcher is None else self._matcher.valid_prefix(tokens)

    @property
    def is_complete(self) -> bool:
        """Whether the grammar is satisfied and only the end of the answer can follow."""
        return self._matcher is not None and self._matcher.is_complete

    @property
    def _words(self) -> int:
        return (self._size + 31) // 32

    def _every_token(self) -> NDArray[np.uint32]:
        mask = np.full(self._words, ~np.uint32(0), dtype=np.uint32)
        if self._size % 32:
            mask[-1] = (1 << self._size % 32) - 1
        return mask

    def _mask_of(self, token: int) -> NDArray[np.uint32]:
        mask = np.zeros(self._words, dtype=np.uint32)
        mask[token >> 5] = 1 << (token & 31)
        return mask

    def _force(self, tokens: tuple[int, ...]) -> None:
        """Force ``tokens``, unless the grammar does not allow them here."""
        if not tokens:
            return
        if self._matcher is not None and self._matcher.valid_prefix(tokens) < len(tokens):
            return
        assert self._reasoning is not None
        self._reasoning.closes()
        self._forced = list(tokens)
        self._begins = True

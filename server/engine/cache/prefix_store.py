"""Cached prefixes in ordinary memory, out of the KV cells.

On a CPU a step looks at every cell in use, whoever it belongs to, so that cells nobody works with
make all answers slower. What was not used for a while is therefore kept here, and put back into
cells when a prompt begins with it, which is only copying.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.engine.cache.radix_tree import Tokens, common_prefix

# Sizes are rounded up to a multiple of this, so that a buffer serves for the next segment too.
_BUFFER_BYTES = 1 << 20


@dataclass(eq=False, slots=True)
class Segment:
    """The cells of ``tokens[start:]``, as the backend copied them; those before are not in it."""

    scope: CacheScope
    tokens: Tokens
    start: int
    state: NDArray[np.uint8]

    @property
    def cells(self) -> int:
        """How many cells it takes to put it back."""
        return len(self.tokens) - self.start


class PrefixStore:
    """Segments of up to ``most_tokens`` tokens together, the least recently used first."""

    def __init__(self, most_tokens: int) -> None:
        self.tokens_free = most_tokens
        self._most_tokens = most_tokens
        self._segments: list[Segment] = []
        self._spare: NDArray[np.uint8] | None = None

    def make_room(self, tokens: int) -> bool:
        """Drop the oldest until ``tokens`` fit; false, and nothing dropped, if they never can."""
        if tokens > self._most_tokens:
            return False
        while tokens > self.tokens_free:
            oldest = self._segments[0]
            self.take(oldest)
            self.recycle(oldest.state)
        return True

    def put(self, segment: Segment) -> None:
        """Keep ``segment`` as the latest; there is room for it."""
        assert segment.cells <= self.tokens_free
        self._segments.append(segment)
        self.tokens_free -= segment.cells

    def take(self, segment: Segment) -> None:
        """Keep ``segment`` no longer."""
        self._segments.remove(segment)
        self.tokens_free += segment.cells

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """An array of ``size`` bytes for a state, in memory that was used before if there is some.

        The system's fresh memory costs several times what copying a state into it does.
        """
        spare, self._spare = self._spare, None
        if spare is None or not size <= spare.size <= 2 * size + _BUFFER_BYTES:
            spare = np.empty(-(-size // _BUFFER_BYTES) * _BUFFER_BYTES, dtype=np.uint8)
        return spare[:size]

    def recycle(self, state: NDArray[np.uint8]) -> None:
        """Use the memory of ``state``, which nobody reads any more, for the next one."""
        self._spare = state.base

    def find(self, scope: CacheScope, tokens: Tokens, length: int) -> tuple[Segment, int] | None:
        """What continues ``tokens[:length]``: the segment that does so longest, and up to where."""
        best, end = None, length
        for segment in self._segments:
            if segment.scope != scope or segment.start > length:
                continue
            # Most are ruled out by the one token that would be next.
            if end >= min(len(segment.tokens), len(tokens)) or segment.tokens[end] != tokens[end]:
                continue
            common = common_prefix(segment.tokens, tokens)
            if common > end:
                best, end = segment, common
        return None if best is None else (best, end)

    def reach(self, scope: CacheScope, tokens: Tokens, length: int) -> int:
        """How many of ``tokens`` there are with what can be put back behind ``tokens[:length]``."""
        while (found := self.find(scope, tokens, length)) is not None:
            length = found[1]
        return length

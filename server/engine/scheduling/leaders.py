"""Which sequences wait while a running one computes a prefix that both share."""

from __future__ import annotations

from collections.abc import Sequence

from server.engine.cache.prefix_cache import PrefixCache
from server.engine.cache.radix_tree import common_prefix
from server.engine.scheduling.pace import LEAST_CHUNK
from server.engine.sequence import SequenceState

LEAST_SHARED = LEAST_CHUNK
"""Waiting for another's prefill pays if it saves at least the smallest chunk."""


class Leaders:
    """Compares sequences, and remembers how much each two share."""

    def __init__(self, cache: PrefixCache) -> None:
        self._cache = cache
        self._shared: dict[tuple[int, int], int] = {}

    def delay(self, sequence: SequenceState, running: Sequence[SequenceState]) -> bool:
        """Whether a running prompt will soon share more with ``sequence`` than the cache does.

        One that gives way, and may pause, is waited for by its like alone.
        """
        leaders = [
            s
            for s in running
            if s.in_prompt and s.scope == sequence.scope and s.gives_way <= sequence.gives_way
        ]
        if not leaders:
            return False
        promised = max(self._promised(sequence, leader) for leader in leaders)
        if promised < LEAST_SHARED:
            return False
        have = self._cache.known(sequence.scope, sequence.cache_keys(), sequence.reusable)
        return promised >= have + LEAST_SHARED

    def common(self, sequence: SequenceState, leader: SequenceState) -> int:
        """How many cells of ``sequence`` begin as the prompt of ``leader`` does."""
        key = (sequence.order, leader.order)
        shared = self._shared.get(key)
        if shared is None:
            prompt = leader.cache_keys(leader.prompt_length)
            shared = common_prefix(sequence.cache_keys(sequence.reusable), prompt)
            self._shared[key] = shared
        return shared

    def forget(self, sequence: SequenceState) -> None:
        """Forget what ``sequence`` shares with others."""
        self._shared = {k: v for k, v in self._shared.items() if sequence.order not in k}

    def _promised(self, sequence: SequenceState, leader: SequenceState) -> int:
        """How many cells the two will share; 0 if ``leader`` has computed them already."""
        shared = self.common(sequence, leader)
        return shared if shared > leader.computed else 0

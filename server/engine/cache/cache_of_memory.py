"""The kind of prefix cache that a memory needs."""

from __future__ import annotations

from collections.abc import Callable

from server.engine.cache.prefix_cache import PrefixCache
from server.engine.cache.prefix_tier import PrefixTier
from server.engine.cache.sequence_memory import SequenceMemory
from server.engine.cache.whole_states import WholeStateCache


def prefix_cache(
    memory: SequenceMemory,
    *,
    cells: int,
    sequence_ids: int,
    stored_tokens: int = 0,
    tier: PrefixTier | None = None,
    now: Callable[[], float] = lambda: 0.0,
) -> PrefixCache:
    """A cache over ``memory``; whole states have no store, so none of ``stored_tokens``.

    ``now`` tells the seconds by which `PrefixCache.fetch` ends.
    """
    if memory.partial_removal:
        return PrefixCache(
            memory,
            cells=cells,
            sequence_ids=sequence_ids,
            stored_tokens=stored_tokens,
            tier=tier,
            now=now,
        )
    return WholeStateCache(memory, cells=cells, sequence_ids=sequence_ids, tier=tier)

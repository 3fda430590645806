from __future__ import annotations

import numpy as np

from server.core.request import CacheScope
from server.engine.cache.prefix_store import PrefixStore
from server.engine.cache.segment import Segment

_STATE_BYTES = 8_500_000


def segment(store: PrefixStore, first: int, size: int = _STATE_BYTES) -> Segment:
    tokens = np.arange(first, first + 10, dtype=np.int32)
    return Segment(CacheScope(), tokens, 0, store.allocate(size))


def test_a_state_that_was_given_up_leaves_its_memory_to_the_next() -> None:
    store = PrefixStore(most_cells=20)
    oldest = segment(store, 0)
    store.put(oldest)
    store.put(segment(store, 100))
    assert store.make_room(10)
    assert np.shares_memory(store.allocate(_STATE_BYTES + 1000), oldest.state)
    assert not np.shares_memory(store.allocate(_STATE_BYTES), oldest.state), "it is taken"


def test_memory_of_much_larger_states_is_not_kept_for_a_small_one() -> None:
    store = PrefixStore(most_cells=20)
    large = segment(store, 0)
    store.recycle(large.state)
    assert not np.shares_memory(store.allocate(1000), large.state)

"""Stored prefixes that come back into cells in parts, while streams go on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from server.engine.cache import prefix_cache
from tests.unit.engine.cache_rig import SHARED, Rig

LONG = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def stored(prompts: list[list[int]], **options: Any) -> Rig:
    """A cache that has ``prompts`` in its store, and another sequence in its cells."""
    rig = Rig(kv_cells=300, batch_size=300, stored_tokens=20, **options)
    for prompt in prompts:
        rig.finish(rig.start(prompt)[0], prompt)
    rig.start([5] * 140)
    rig.cache.tidy()
    return rig


def test_a_stored_prefix_is_fetched_one_segment_at_a_time() -> None:
    rig = stored([LONG], window=4)
    asked = np.array([*LONG[:7], 30, 31], dtype=np.int32)
    fetched = []
    while rig.cache.fetch(SHARED, asked, 8):
        rig.check()
        fetched.append(rig.cache.match(SHARED, asked, 8))
        rig.cache.limit_fetching(0)
    fetched.append(rig.cache.match(SHARED, asked, 8))
    assert fetched == [4, 7]
    begun = rig.cache.begin(SHARED, asked, 8)
    assert begun is not None
    assert rig.backend.tokens_of(begun[0]) == LONG[:7]
    rig.check()


def test_as_many_segments_are_fetched_as_there_is_time_for() -> None:
    rig = stored([LONG], window=4)
    asked = np.array([*LONG, 30], dtype=np.int32)
    rig.cache.limit_fetching(1e6)
    assert not rig.cache.fetch(SHARED, asked, 10)
    assert rig.cache.match(SHARED, asked, 10) == 10
    rig.check()


def test_a_step_puts_back_short_prefixes_of_several_prompts() -> None:
    prompts = [[first, 2, 3, 4] for first in (1, 2, 3)]
    rig = stored(prompts)
    rig.cache.limit_fetching(0)
    asked = [np.array([*prompt, 30], dtype=np.int32) for prompt in prompts]
    assert [rig.cache.fetch(SHARED, keys, 4) for keys in asked] == [False, True, True]
    rig.cache.limit_fetching(1e6)
    assert [rig.cache.fetch(SHARED, keys, 4) for keys in asked] == [False, False, False]
    assert [rig.cache.match(SHARED, keys, 4) for keys in asked] == [4, 4, 4]
    rig.check()


def test_what_was_fetched_does_not_give_up_its_id_to_what_comes_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefix_cache, "_MOST_MOVED", 4)
    rig = Rig(kv_cells=40, batch_size=40, stored_tokens=40, sequence_ids=3)
    rig.finish(rig.start(LONG)[0], LONG)
    rig.finish(rig.start([11, 11])[0], [11, 11])
    rig.start([12, 12])
    while rig.cache.tidy(idle=True):
        pass
    asked = np.array([*LONG, 30], dtype=np.int32)
    fetches = 0
    while rig.cache.fetch(SHARED, asked, len(LONG)):
        rig.check()
        rig.cache.limit_fetching(0)
        fetches += 1
        assert fetches <= 3, "no more than it has segments"
    begun = rig.cache.begin(SHARED, asked, len(LONG))
    assert begun is not None
    assert begun[1] == len(LONG)
    rig.check()

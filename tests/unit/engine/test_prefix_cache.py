from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core.pieces import ImagePiece, continues_image
from server.core.request import CacheScope
from server.engine.cache import prefix_cache
from tests.unit.engine.cache_rig import SHARED, Rig
from tests.unit.engine.fake_backend import MEMORIES, FakeBackend


def test_a_finished_prefix_is_shared_with_credit_inside_an_edge() -> None:
    rig = Rig()
    a, shared = rig.start([1, 2, 3, 4, 5, 6])
    assert shared == 0
    rig.finish(a, [1, 2, 3, 4, 5, 6])
    _, shared = rig.start([1, 2, 3, 9, 9])
    assert shared == 3
    rig.check()


def test_a_running_prefix_is_shared_too() -> None:
    rig = Rig()
    rig.start([1, 2, 3, 4])
    _, shared = rig.start([1, 2, 3, 4, 5])
    assert shared == 4
    assert rig.cache.cells_used == 5
    rig.check()


def test_the_last_token_is_never_taken_from_the_cache() -> None:
    rig = Rig()
    a, _ = rig.start([1, 2, 3])
    rig.finish(a, [1, 2, 3])
    assert rig.cache.match(SHARED, np.array([1, 2, 3], dtype=np.int32), 2) == 2


def test_scopes_share_nothing() -> None:
    rig = Rig()
    rig.start([1, 2, 3, 4], scope=CacheScope(api_key="one key"))
    _, shared = rig.start([1, 2, 3, 4], scope=CacheScope(api_key="another key"))
    assert shared == 0
    rig.check()


def test_the_same_tokens_computed_twice_are_kept_once() -> None:
    rig = Rig()
    tokens = np.array([1, 2, 3, 4], dtype=np.int32)
    first, second = (rig.cache.begin(SHARED, tokens, 3) for _ in range(2))
    assert first is not None
    assert second is not None
    for sequence_id in (first[0], second[0]):
        rig.extend(sequence_id, tokens, 0)
    assert rig.backend.cells_used == 8
    rig.cache.share(first[0], tokens)
    rig.cache.share(second[0], tokens)
    assert rig.backend.cells_used == 4
    rig.check()


def test_pressure_frees_the_least_recently_used_first() -> None:
    rig = Rig(kv_cells=12, batch_size=12)
    old, _ = rig.start([1, 1, 1, 1])
    rig.finish(old, [1, 1, 1, 1])
    new, _ = rig.start([2, 2, 2, 2])
    rig.finish(new, [2, 2, 2, 2])
    assert rig.cache.make_room(6)
    assert rig.cache.match(SHARED, np.array([2, 2, 2, 2, 2], dtype=np.int32), 4) == 4
    assert rig.cache.match(SHARED, np.array([1, 1, 1, 1, 1], dtype=np.int32), 4) == 0
    rig.check()


def test_running_cells_are_never_freed() -> None:
    rig = Rig(kv_cells=8, batch_size=8)
    rig.start([1, 2, 3, 4, 5])
    assert not rig.cache.make_room(4)
    assert rig.backend.tokens_of(0) == [1, 2, 3, 4, 5]
    rig.check()


def test_cells_that_a_sequence_has_from_the_cache_are_never_freed() -> None:
    rig = Rig(stored_tokens=256, kv_cells=640, batch_size=640)
    tokens = [1] * 600  # an edge of several segments, of which the store takes the last one only
    first, _ = rig.start(tokens)
    rig.finish(first, tokens)
    assert rig.cache.begin(SHARED, np.array([*tokens, 2], dtype=np.int32), 600) == (1, 600)
    assert not rig.cache.make_room(100)
    rig.check()


def test_ids_run_out_only_when_all_are_running() -> None:
    rig = Rig(sequence_ids=2)
    a, _ = rig.start([1, 1])
    rig.start([2, 2])
    assert rig.cache.begin(SHARED, np.array([3, 3], dtype=np.int32), 1) is None
    rig.finish(a, [1, 1])
    assert rig.cache.begin(SHARED, np.array([3, 3], dtype=np.int32), 1) is not None


def test_whole_states_are_shared_only_where_they_end() -> None:
    rig = Rig(partial_removal=False)
    a, _ = rig.start([1, 2, 3, 4])
    rig.finish(a, [1, 2, 3, 4])
    _, shared = rig.start([1, 2, 3, 9])
    assert shared == 0
    _, shared = rig.start([1, 2, 3, 4, 5])
    assert shared == 4
    rig.cache.check_integrity()


def test_cells_computed_twice_count_while_any_whole_state_has_them() -> None:
    rig = Rig(partial_removal=False)
    prompt = [1, 2, 3, 4]
    first, _ = rig.start(prompt)
    second, _ = rig.start(prompt)
    rig.extend(first, np.array([*prompt, 5], dtype=np.int32), len(prompt))
    rig.finish(first, [*prompt, 5])
    _, shared = rig.start([*prompt, 6])
    assert shared == len(prompt)
    rig.cache.drop(second)
    assert rig.backend.cells_used == 2 * (len(prompt) + 1)
    rig.check()


def test_of_a_copy_only_what_is_shared_of_it_counts() -> None:
    rig = Rig(lost_beyond=5)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8]
    tokens = np.array(prompt, dtype=np.int32)
    begun = [rig.cache.begin(SHARED, tokens, len(prompt) - 1) for _ in range(2)]
    (first, _), (second, _) = filter(None, begun)
    for sequence_id in (first, second):
        rig.extend(sequence_id, tokens, 0)
        rig.cache.share(sequence_id, tokens)
    with patch.object(rig.backend, "can_cut", lambda donor, length: donor == second):
        cut = np.array([1, 2, 9], dtype=np.int32)
        assert rig.cache.newly_pinned(SHARED, cut, 2) == 0
        third, shared = rig.start(cut.tolist())
    assert shared == 2
    rig.extend(first, np.array([*prompt, 5], dtype=np.int32), len(prompt))
    rig.cache.share(first, np.array([*prompt, 5], dtype=np.int32))
    rig.start([*prompt, 5, 6, 7, 8, 9, 9, 9])
    rig.check()
    rig.finish(third, cut.tolist())
    rig.cache.drop(second)
    assert rig.backend.cells_used == len(prompt) + 7 + 3
    rig.check()


def test_admission_counts_the_cells_of_a_copy_that_it_pins() -> None:
    rig = Rig(partial_removal=False)
    prompt = [1, 2, 3, 4]
    first, _ = rig.start(prompt)
    second, _ = rig.start(prompt)
    rig.extend(first, np.array([*prompt, 5], dtype=np.int32), len(prompt))
    rig.finish(second, prompt)
    rig.cache.share(first, np.array([*prompt, 5], dtype=np.int32))
    assert rig.cache.cells_pinned == len(prompt) + 1
    array = np.array([*prompt, 6], dtype=np.int32)
    assert rig.cache.newly_pinned(SHARED, array, len(prompt)) == len(prompt)
    third, _ = rig.start(array.tolist())
    assert rig.cache.cells_pinned == rig.backend.cells_held_by([first, third])


def test_what_pressure_takes_from_the_cells_comes_back_from_the_store() -> None:
    rig = Rig(kv_cells=12, batch_size=12, stored_tokens=8)
    old, _ = rig.start([1, 1, 1, 1, 1, 1])
    rig.finish(old, [1, 1, 1, 1, 1, 1])
    assert rig.cache.make_room(12)
    assert rig.backend.cells_used == 0
    again = np.array([1, 1, 1, 1, 2, 2], dtype=np.int32)
    assert rig.cache.match(SHARED, again, 5) == 0
    assert rig.cache.known(SHARED, again, 5) == 4
    assert rig.cache.known(CacheScope(api_key="another key"), again, 5) == 0
    begun = rig.cache.begin(SHARED, again, 5)
    assert begun is not None
    assert begun[1] == 4
    assert rig.backend.tokens_of(begun[0]) == [1, 1, 1, 1]
    rig.check()
    assert (
        rig.cache.known(SHARED, np.array([1] * 6, dtype=np.int32), 6) == 6
    )  # it is still there too


def test_an_id_that_was_never_used_can_take_up_what_is_stored() -> None:
    rig = Rig(kv_cells=40, batch_size=40, stored_tokens=40)
    stored = [1, 2, 3, 4, 5]
    for tokens in (stored, [6, 7, 8]):
        sequence_id, _ = rig.start(tokens)
        rig.finish(sequence_id, tokens)
    assert rig.cache.tidy(idle=True)
    rig.start([9, 9])  # takes the id that is free again
    _, shared = rig.start(stored)
    assert shared == len(stored) - 1
    rig.check()


def test_the_store_continues_what_lies_in_cells_and_in_other_segments() -> None:
    rig = Rig(kv_cells=40, batch_size=40, stored_tokens=40)
    whole = [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    for tokens in (whole, [1, 1, 1, 1, 2, 2, 2, 2, 9, 9], [1, 1, 1, 1, 8]):
        rig.finish(rig.start(tokens)[0], tokens)
    assert rig.cache.make_room(40)
    assert rig.backend.decoded_tokens == 12 + 2 + 1
    begun = rig.cache.begin(SHARED, np.array([*whole, 4], dtype=np.int32), 12)
    assert begun is not None
    assert begun[1] == 12
    assert rig.backend.tokens_of(begun[0]) == whole
    rig.check()


def test_a_prefix_goes_to_the_store_when_much_else_was_computed_since_its_last_use() -> None:
    rig = Rig(kv_cells=400, batch_size=200, stored_tokens=6)
    idle, _ = rig.start([1, 2, 3, 4])
    rig.finish(idle, [1, 2, 3, 4])
    busy, _ = rig.start([5] * 100)
    rig.cache.tidy()
    assert rig.backend.cells_used == 104
    rig.extend(busy, np.full(140, 5, dtype=np.int32), 100)
    rig.cache.tidy()
    assert rig.backend.cells_used == 140
    assert rig.cache.known(SHARED, np.array([1, 2, 3, 4], dtype=np.int32), 4) == 4
    rig.check()


def test_a_full_store_drops_its_oldest_for_what_pressure_takes_but_not_for_what_is_idle() -> None:
    rig = Rig(kv_cells=300, batch_size=300, stored_tokens=6)
    for token in (1, 2, 3):
        rig.finish(rig.start([token] * 4)[0], [token] * 4)
    busy, _ = rig.start([5] * 140)
    rig.cache.tidy()
    rig.cache.tidy()
    assert rig.backend.cells_used == 140 + 8, "only one of them finds room"
    assert rig.cache.make_room(300 - 140 - 4)
    known = [rig.cache.known(SHARED, np.full(4, token, dtype=np.int32), 4) for token in (1, 2, 3)]
    assert known == [0, 4, 4]
    assert rig.backend.tokens_of(busy) == [5] * 140
    rig.check()


def test_what_was_idle_for_very_long_displaces_the_oldest_in_a_full_store() -> None:
    rig = Rig(kv_cells=3000, batch_size=2500, stored_tokens=6)
    for token in (1, 2):
        rig.finish(rig.start([token] * 4)[0], [token] * 4)
    busy, _ = rig.start([5] * 140)
    rig.cache.tidy()
    assert rig.backend.cells_used == 140 + 4
    for computed, left in ((2000, 4), (2060, 0)):
        rig.extend(busy, np.full(computed, 5, dtype=np.int32), rig.cache._running[busy].length)
        rig.cache.tidy()
        assert rig.backend.cells_used == computed + left
    known = [rig.cache.known(SHARED, np.full(4, token, dtype=np.int32), 4) for token in (1, 2)]
    assert known == [0, 4]
    rig.check()


def test_a_long_prefix_goes_to_the_store_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache, "_MOST_MOVED", 4)
    rig = Rig(kv_cells=300, batch_size=300, stored_tokens=20)
    long = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    rig.finish(rig.start(long)[0], long)
    rig.start([5] * 140)
    for left in (8, 4, 0):
        rig.cache.tidy()
        assert rig.backend.cells_used == 140 + left
        assert rig.cache.known(SHARED, np.array(long, dtype=np.int32), 10) == 10
        rig.check()
    begun = rig.cache.begin(SHARED, np.array([*long, 1], dtype=np.int32), 10)
    assert begun is not None
    assert rig.backend.tokens_of(begun[0]) == long
    rig.check()


def test_what_two_answers_to_one_prompt_share_goes_to_the_store_whole() -> None:
    rig = Rig(kv_cells=40, batch_size=40, stored_tokens=40)
    prompt, answer = [1, 2, 3, 4], [1, 2, 3, 4, 5, 6]
    for sequence_id in [rig.start(prompt)[0], rig.start(prompt)[0]]:
        rig.extend(sequence_id, np.array(answer, dtype=np.int32), len(prompt))
        rig.finish(sequence_id, answer)
    rig.finish(rig.start([9, 9])[0], [9, 9])
    while rig.cache.tidy(idle=True):
        rig.check()
    assert rig.backend.cells_used == 2
    assert rig.start([*answer, 7])[1] == len(answer)
    rig.check()


def test_a_long_prefix_that_gives_up_its_id_goes_to_the_store_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefix_cache, "_MOST_MOVED", 4)
    rig = Rig(kv_cells=40, batch_size=40, stored_tokens=40, sequence_ids=2)
    long = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    rig.finish(rig.start(long)[0], long)
    rig.start([11, 11])
    last, _ = rig.start([12, 12])
    assert rig.backend.cells_used == 4, "no id is left for what is cached"
    rig.finish(last, [12, 12])
    assert rig.cache.known(SHARED, np.array(long, dtype=np.int32), len(long)) == len(long)
    rig.check()


def test_a_segment_holds_no_more_than_sliding_windows_save() -> None:
    rig = Rig(kv_cells=300, batch_size=300, stored_tokens=20, window=4)
    long = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    rig.finish(rig.start(long)[0], long)
    rig.start([5] * 140)
    rig.cache.tidy()
    assert rig.backend.cells_used == 140
    starts = [segment.start for segment in rig.cache._store._segments]
    assert starts == [8, 4, 0], "at multiples of the window, since attention may be chunked"
    asked = [*long[:7], 30, 31]
    begun = rig.cache.begin(SHARED, np.array(asked, dtype=np.int32), 8)
    assert begun is not None
    assert rig.backend.tokens_of(begun[0]) == asked[:7]
    rig.check()


def image(digest: bytes, cells: int, first: int | None = None) -> list[int]:
    keys = [*ImagePiece(cells=cells, positions=cells, digest=digest).keys]
    return keys if first is None else [first, *keys[1:]]


# The last two begin with the same key.
IMAGES = [image(b"a", 3), image(b"b", 5), image(b"c", 4, -(2**31)), image(b"d", 4, -(2**31))]
parts = st.one_of(st.integers(1, 3).map(lambda token: [token]), st.sampled_from(IMAGES))
texts = st.lists(st.integers(1, 3), min_size=2, max_size=12)
mixed = st.lists(parts, min_size=2, max_size=5).map(
    lambda found: [k for part in found for k in part]
)
token_lists = texts | mixed
actions = st.lists(
    st.tuples(
        st.sampled_from(
            ["start", "resume", "generate", "reject", "finish", "room", "tidy", "drop"]
        ),
        st.integers(0, 7),
        token_lists,
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(
    actions,
    st.sampled_from([*MEMORIES]),
    st.sampled_from([0, 15, 100]),
    st.sampled_from([3, 512]),
    st.sampled_from([None, 2, 5]),
)
def test_books_and_cells_agree_after_any_history(
    history: list[tuple[str, int, list[int]]],
    memory: str,
    stored_tokens: int,
    most_moved: int,
    window: int | None,
) -> None:
    with patch.object(prefix_cache, "_MOST_MOVED", most_moved):
        check_history(history, memory, stored_tokens, window)


def tidy_idle(rig: Rig, finished: list[list[int]]) -> None:
    """Tidy; a store that has room for all that is cached must then have what leaves the cells."""

    def known() -> list[int]:
        keys = [np.array(tokens, dtype=np.int32) for tokens in finished]
        return [rig.cache.known(SHARED, each, len(each)) for each in keys]

    before, has_room = known(), rig.cache._store.cells_free >= rig.cache.cells_used
    rig.cache.tidy(idle=True)
    assert not has_room or known() == before


def check_history(
    history: list[tuple[str, int, list[int]]],
    memory: str,
    stored_tokens: int,
    window: int | None,
) -> None:
    backend = FakeBackend(
        kv_cells=60, sequence_ids=6, batch_size=60, window=window, **MEMORIES[memory]
    )
    rig = Rig(stored_tokens, backend)
    running: dict[int, list[int]] = {}
    finished: list[list[int]] = []
    for action, pick, tokens in history:
        chosen = sorted(running)[pick % len(running)] if running else None
        if action == "start" and len(running) < 5:
            array = np.array(tokens, dtype=np.int32)
            pinned = rig.cache.cells_pinned + rig.cache.newly_pinned(SHARED, array, len(tokens) - 1)
            nothing_gives_way = bool(rig.cache._free_ids) and not stored_tokens
            begun = rig.cache.begin(SHARED, array, len(tokens) - 1)
            assert begun is not None
            if nothing_gives_way:
                assert rig.cache.cells_pinned == pinned
            sequence_id, shared = begun
            if rig.cache.make_room(len(tokens) - shared):
                rig.extend(sequence_id, array, shared)
                rig.cache.share(sequence_id, array)
                running[sequence_id] = list(tokens)
            else:
                rig.cache.drop(sequence_id)
        elif action == "resume" and finished and len(running) < 5:
            resumed = [*finished[pick % len(finished)], 1]
            begun = rig.cache.begin(SHARED, np.array(resumed, dtype=np.int32), len(resumed) - 1)
            assert begun is not None
            running[begun[0]] = resumed[: begun[1]]
        elif chosen is None and action == "tidy":
            tidy_idle(rig, finished)
        elif chosen is None:
            continue
        elif action == "generate" and rig.cache.make_room(len(tokens)):
            grown = running[chosen] + tokens
            rig.extend(chosen, np.array(grown, dtype=np.int32), len(running[chosen]))
            running[chosen] = grown
        elif action == "reject" and backend.removes_drafts and rig.cache.make_room(2):
            drafted = [*running[chosen], 1, 2]
            rig.extend(chosen, np.array(drafted, dtype=np.int32), len(running[chosen]))
            rig.cache.grow(chosen, -2)
        elif action == "finish":
            finished.append(running.pop(chosen))
            rig.finish(chosen, finished[-1])
        elif action == "room":
            rig.cache.make_room(10 * pick)
        elif action == "tidy":
            rig.cache._clock += 30 * pick
            rig.cache.tidy()
        elif action == "drop":
            del running[chosen]
            rig.cache.drop(chosen)
        for sequence_id, content in running.items():
            assert rig.backend.tokens_of(sequence_id) == content
        rig.cache.check_integrity()
        for segment in rig.cache._store._segments:
            assert not continues_image(segment.keys[segment.start])
        real = rig.backend.cells_used, rig.backend.cells_held_by(running)
        counted = rig.cache.cells_used, rig.cache.cells_pinned
        if backend.partial_removal:
            assert counted == real
        assert counted[0] >= real[0]
        assert counted[1] >= real[1]

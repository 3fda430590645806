"""The choice among replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cluster.affinity.replica_choice import (
    BOUND,
    FEW_REQUESTS,
    ReplicaChoice,
    home_of,
    most_load,
    rendezvous,
)
from server.cluster.affinity.request_affinity import Affinity
from server.cluster.routing import AffinityRouter, Asked
from server.core.ids import home, id_with_home

names = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=12)
seeds = st.binary(min_size=16, max_size=16)
load_maps = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 200), min_size=1)


def session(number: int) -> Affinity:
    return Affinity((number.to_bytes(16, "little"),))


def idle(replicas: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(replicas, 0)


def fleet(count: int) -> dict[str, int]:
    return idle(f"replica-{number}" for number in range(count))


@given(names, seeds)
def test_routers_that_share_nothing_choose_alike(replicas: set[str], seed: bytes) -> None:
    loads, backwards = idle(sorted(replicas)), idle(sorted(replicas, reverse=True))
    affinity = Affinity((seed,))
    assert ReplicaChoice().choose(affinity, loads) == ReplicaChoice().choose(affinity, backwards)


@given(names, st.lists(seeds, max_size=20), st.data())
def test_a_session_moves_only_if_its_replica_leaves(
    replicas: set[str], sessions: list[bytes], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(replicas)))
    left = replicas - {gone}
    for seed in sessions:
        before = rendezvous(seed, replicas)
        if left and before != gone:
            assert rendezvous(seed, left) == before


@given(load_maps, st.lists(seeds, max_size=3))
def test_no_replica_above_the_bound_is_chosen(loads: dict[str, int], blocks: list[bytes]) -> None:
    choice = ReplicaChoice()
    affinity = Affinity(tuple(blocks))
    choice.choose(affinity, idle(loads))
    chosen = choice.choose(affinity, loads)
    mean = (sum(loads.values()) + 1) / len(loads)
    assert loads[chosen] < most_load(loads)
    assert loads[chosen] + 1 <= max(FEW_REQUESTS, BOUND * mean + 1)


def test_when_one_of_ten_leaves_a_tenth_of_the_sessions_moves_to_all_others() -> None:
    loads, choice = fleet(10), ReplicaChoice()
    before = {number: choice.choose(session(number), loads) for number in range(2000)}
    gone = "replica-3"
    del loads[gone]
    after = {number: choice.choose(session(number), loads) for number in range(2000)}
    moved = [number for number in before if before[number] != after[number]]
    assert {before[number] for number in moved} == {gone}
    assert len(moved) / len(before) < 1 / 10 + 0.05
    assert len({after[number] for number in moved}) == 9


def test_when_one_joins_known_sessions_stay_and_new_ones_go_there_too() -> None:
    loads, choice = fleet(4), ReplicaChoice()
    before = {number: choice.choose(session(number), loads) for number in range(500)}
    loads["replica-new"] = 0
    assert {number: choice.choose(session(number), loads) for number in before} == before
    new = Counter(choice.choose(session(number), loads) for number in range(500, 1000))
    assert 0.1 < new["replica-new"] / 500 < 0.3


def test_a_session_that_had_to_move_stays_where_it_went() -> None:
    loads, choice = fleet(4), ReplicaChoice()
    place = choice.choose(session(1), loads)
    moved_to = choice.choose(session(1), {**loads, place: 30})
    assert moved_to != place
    assert choice.choose(session(1), loads) == moved_to


def test_a_session_stays_with_the_replica_that_answered_in_place_of_the_first() -> None:
    loads, choice = fleet(4), ReplicaChoice()
    unreachable = choice.choose(session(1), loads)
    answered = choice.choose(session(1), idle(loads.keys() - {unreachable}))
    assert choice.choose(session(1), loads) == answered


def test_the_longest_known_beginning_decides() -> None:
    loads, choice = fleet(8), ReplicaChoice()
    place = choice.choose(Affinity((b"a", b"b")), loads)
    other = choice.choose(Affinity((b"a", b"c")), {**loads, place: 30})
    assert other != place
    assert choice.choose(Affinity((b"a", b"b", b"d")), loads) == place
    assert choice.choose(Affinity((b"a", b"c", b"e")), loads) == other


def test_what_belongs_nowhere_goes_to_the_least_loaded() -> None:
    assert ReplicaChoice().choose(Affinity(), {"a": 2, "b": 1, "c": 3}) == "b"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/api/embed"])
def test_embeddings_go_to_the_least_loaded(path: str) -> None:
    for number in range(10):
        asked = Asked(path, {}, {"input": f"Text {number}."})
        assert AffinityRouter().choose(asked, {"a": 2, "b": 1, "c": 3}) == "b"


def test_a_router_knows_a_session_by_header_or_body() -> None:
    loads = fleet(9)
    named = Asked("/v1/messages", {b"x-session-id": b"1"}, None)
    said = Asked("/v1/messages", {}, {"messages": [{"role": "user", "content": "Hi."}]})
    for asked in (named, said):
        router = AffinityRouter()
        place = router.choose(asked, loads)
        assert router.choose(asked, {**loads, place: FEW_REQUESTS - 1}) == place


def test_an_id_leads_back_to_the_replica_that_made_it() -> None:
    loads = fleet(9)
    token = home.set("")
    try:
        for name in loads:
            home.set(home_of(name))
            stored = f"resp_{id_with_home(40)}"
            assert len(stored) == len("resp_") + 40
            affinity = Affinity((b"hash of it",), stored=stored)
            assert ReplicaChoice().choose(affinity, loads) == name
            assert ReplicaChoice().choose(affinity, {**loads, name: 30}) != name
    finally:
        home.reset(token)


def test_ids_of_a_single_server_are_random_to_their_end() -> None:
    ends = {id_with_home(40)[-6:] for _ in range(50)}
    assert len(ends) == 50


def test_what_was_used_least_recently_is_forgotten() -> None:
    loads, choice = fleet(4), ReplicaChoice(remembered=10)
    place = choice.choose(session(0), loads)
    moved_to = choice.choose(session(0), {**loads, place: 30})
    for number in range(1, 10):
        choice.choose(session(number), loads)
    assert choice.choose(session(0), loads) == moved_to
    for number in range(10, 20):
        choice.choose(session(number), loads)
    assert choice.choose(session(0), loads) == place

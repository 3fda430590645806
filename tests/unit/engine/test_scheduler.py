"""The scheduler on its own: no model, no clock, thousands of arrival patterns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.core.request import CacheScope
from server.engine.adapters import Activation
from server.engine.cache.cache_of_memory import prefix_cache
from server.engine.scheduling.pace import LEAST_CHUNK, Pace
from server.engine.scheduling.scheduler import Scheduler
from server.engine.scheduling.step import Step
from server.engine.sequence import SequenceState
from server.engine.spans import Spans, TokenSpan

SHARED = CacheScope()


@dataclass(frozen=True, eq=False)
class Adapted:
    identity: str


PIRATE, POET = Adapted("pirate"), Adapted("poet")


class NoMemory:
    """Cells that exist only in the cache's books."""

    def __init__(self, *, partial_removal: bool) -> None:
        self.partial_removal = self.removes_drafts = partial_removal
        self.window: int | None = None

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        pass

    def can_cut(self, sequence_id: int, length: int) -> bool:
        return self.partial_removal

    def share_range(self, source: int, target: int, start: int, end: int) -> None:
        pass

    def truncate_sequence(self, sequence_id: int, length: int) -> None:
        pass

    def save(
        self, sequence_id: int, start: int, allocate: Callable[[int], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        return allocate(0)

    def restore(self, state: NDArray[np.uint8], sequence_id: int) -> bool:
        return True


@dataclass
class Simulation:
    """Runs plans without computing anything: every answer is the token 7, repeated."""

    cells: int = 200
    parallel: int = 4
    batch_size: int = 32
    outputs: int = 16
    budget: float = 0.1
    whole_states: bool = False
    admitted: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.cache = prefix_cache(
            NoMemory(partial_removal=not self.whole_states),
            cells=self.cells,
            sequence_ids=self.parallel + 4,
            stored_tokens=self.cells // 4,
        )
        self.pace = Pace(self.budget)
        self.scheduler = Scheduler(
            self.cache,
            self.pace,
            parallel=self.parallel,
            batch_size=self.batch_size,
            outputs_per_batch=self.outputs,
            whole_states=self.whole_states,
        )
        self.states: dict[int, SequenceState] = {}
        self.wanted: dict[int, int] = {}

    def add(
        self,
        order: int,
        prompt: list[int],
        answer: int,
        *,
        scores: bool = False,
        scope: CacheScope = SHARED,
        priority: int = 0,
        adapters: Adapted | None = None,
        activation: Activation | None = None,
        gives_way: bool = False,
    ) -> None:
        self.wanted[order] = len(prompt) + answer
        self.states[order] = SequenceState(
            order=order,
            scope=scope,
            spans=Spans([TokenSpan(prompt)]),
            prompt_length=len(prompt),
            scores_prompt=scores,
            priority=priority,
            adapters=adapters,
            activation=activation,
            gives_way=gives_way,
        )
        self.scheduler.add(self.states[order])

    def cancel(self, order: int) -> None:
        """Remove a sequence whose client has left, unless it has ended."""
        if order not in self.ended:
            self.scheduler.remove(self.states[order])
            self.ended.append(order)
            self.cache.check_integrity()

    def guess(self) -> None:
        """Let every running answer draft a few tokens, as many as its order says."""
        if any(state.in_prompt for state in self.scheduler.running):
            return
        for state in self.scheduler.running:
            left = self.wanted[state.order] - state.spans.length
            if state.uncomputed == 1 and not self.whole_states:
                state.drafts = [7] * max(0, min(state.order % 4, left))

    def step(self) -> Step:
        plan = self.scheduler.plan()
        works = [*plan.decodes, *plan.prefills]
        self._check(plan)
        for state in self.scheduler.running:
            if state.order not in self.admitted:
                self.admitted.append(state.order)
        for work in works:
            self.scheduler.computed(work)
            state = work.sequence
            if state.uncomputed == 0:
                drafts, accepted = state.drafts, len(state.drafts) // 2
                for token in drafts[:accepted]:
                    state.spans.append(token)
                self.scheduler.accepted_drafts(state, accepted)
                if state.spans.length >= self.wanted[state.order]:
                    self.scheduler.remove(state)
                    self.ended.append(state.order)
                else:
                    state.spans.append(7)
        self.cache.check_integrity()
        self.steps += 1
        return plan

    def _check(self, plan: Step) -> None:
        works = [*plan.decodes, *plan.prefills]
        orders = [w.sequence.order for w in works]
        assert len(orders) == len(set(orders)), "a sequence twice in one batch"
        assert plan.tokens <= self.batch_size
        assert self.cache.cells_used + plan.tokens <= self.cells, "cells over-committed"
        for work in works:
            sequence, activation = work.sequence, work.sequence.activation
            assert sequence.next_adapters is plan.adapters, "two kinds of adapters in one step"
            if activation is not None and sequence.computed < activation.start:
                assert sequence.computed + work.count <= activation.start
            assert work.sequence in self.scheduler.running
            assert 0 < work.count <= work.sequence.uncomputed
        assert not set(self.scheduler.running) & set(self.scheduler.waiting)
        if self.scheduler.running or self.scheduler.waiting:
            assert works, "nothing to do although sequences want to go on"


class Arrival(NamedTuple):
    """A request; its client leaves after ``leaves_after`` steps, or stays (None)."""

    step: int
    prompt: list[int]
    answer: int
    scores: bool
    adapters: Adapted | None
    activated_at: int | None
    leaves_after: int | None
    priority: int
    gives_way: bool


arrivals = st.lists(
    st.builds(
        Arrival,
        step=st.integers(0, 40),
        prompt=st.lists(st.integers(1, 2), min_size=1, max_size=60),
        answer=st.integers(0, 60),
        scores=st.booleans(),
        adapters=st.sampled_from([None, None, PIRATE, POET]),
        activated_at=st.one_of(st.none(), st.integers(0, 59)),
        leaves_after=st.one_of(st.none(), st.none(), st.integers(0, 30)),
        priority=st.sampled_from([0, 0, 1, -1]),
        gives_way=st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


def adapted(arrival: Arrival) -> dict[str, Any]:
    """What makes the arrival's adapters apply, to all of it or from some token on."""
    adapters, start = arrival.adapters, arrival.activated_at
    if adapters is None:
        return {}
    if start is None or start >= len(arrival.prompt):
        return {"adapters": adapters, "scope": CacheScope(adapter=adapters.identity)}
    activation = Activation.of(adapters, start=start, before=None)
    return {"adapters": adapters, "activation": activation}


@pytest.mark.process  # for the time it takes
@settings(max_examples=2000, deadline=None)
@given(arrivals, st.booleans(), st.booleans())
def test_no_sequence_is_lost_doubled_or_starved(
    pattern: list[Arrival], whole_states: bool, drafts: bool
) -> None:
    simulation = Simulation(whole_states=whole_states)
    pattern = sorted(pattern, key=lambda arrival: arrival.step)
    # One after another they would need at most this many steps.
    bound = 41 + sum(2 + len(arrival.prompt) + arrival.answer for arrival in pattern)
    order = 0
    while order < len(pattern) or simulation.scheduler.running or simulation.scheduler.waiting:
        while order < len(pattern) and pattern[order].step <= simulation.steps:
            arrival = pattern[order]
            simulation.add(
                order,
                arrival.prompt,
                arrival.answer,
                scores=arrival.scores,
                priority=arrival.priority,
                **adapted(arrival),
                gives_way=arrival.gives_way,
            )
            order += 1
        for gone, arrival in enumerate(pattern[:order]):
            if arrival.leaves_after == simulation.steps - arrival.step:
                simulation.cancel(gone)
        if drafts:
            simulation.guess()
        simulation.step()
        assert simulation.steps <= 2 * bound, "a sequence starves"
    assert sorted(simulation.ended) == list(range(len(pattern)))


def test_sequences_without_a_common_prefix_are_admitted_in_order_of_arrival() -> None:
    simulation = Simulation(parallel=2)
    for order in range(10):
        simulation.add(order, [10 + order] * 20, answer=5 + 7 * (order % 3))
    while len(simulation.ended) < 10:
        simulation.step()
    assert simulation.admitted == list(range(10))


def test_those_of_a_greater_priority_are_admitted_first_and_give_way_last() -> None:
    simulation = Simulation(cells=100, parallel=2)
    for order, priority in enumerate([0, 0, -1, 0, 1]):
        simulation.add(order, [10 + order] * 20, answer=5, priority=priority)
    simulation.step()
    assert simulation.admitted == [4, 0]
    while len(simulation.ended) < 5:
        simulation.step()
    assert simulation.admitted == [4, 0, 1, 3, 2]
    crowded = Simulation(cells=100, parallel=2)
    crowded.add(0, [1] * 20, answer=60, priority=-1)
    crowded.step()
    crowded.add(1, [2] * 20, answer=60)
    while len(crowded.ended) < 2:
        crowded.step()
    assert crowded.states[0].preempted
    assert not crowded.states[1].preempted


def test_a_large_request_is_not_overtaken_for_ever_by_small_ones() -> None:
    simulation = Simulation(cells=100, parallel=4)
    for order in range(3):
        simulation.add(order, [10 + order] * 10, answer=20)
    simulation.add(3, [50] * 80, answer=2)
    for order in range(4, 40):
        simulation.add(order, [10 + order] * 5, answer=20)
    while 3 not in simulation.ended:
        simulation.step()
    assert simulation.admitted[:4] == [0, 1, 2, 3]


def test_a_follower_is_not_passed_for_ever_by_leaders_that_come_later() -> None:
    simulation = Simulation(cells=1000, parallel=2, batch_size=16)
    shared = list(range(100, 300))
    simulation.add(0, [*shared[:150], 1], answer=3)
    simulation.add(1, [*shared, 2], answer=3)
    for order in range(2, 60):
        simulation.add(order, [*shared[: 100 + order], order], answer=3)
        simulation.step()
    while len(simulation.ended) < 60:
        simulation.step()
    assert simulation.admitted.index(1) <= 2


def test_answers_get_their_token_in_every_step_while_a_prompt_is_prefilled() -> None:
    simulation = Simulation(cells=4000, batch_size=512, budget=0.1)
    simulation.add(0, [1] * 10, answer=100)
    simulation.step()
    for _ in range(5):
        simulation.pace.observe(sequences=1, decode_tokens=1, prefill_tokens=0, seconds=0.01)
        simulation.pace.observe(sequences=0, decode_tokens=0, prefill_tokens=100, seconds=0.2)
    simulation.add(1, [2] * 1000, answer=1)
    chunks = []
    while 1 not in simulation.ended:
        plan = simulation.step()
        assert [w.sequence.order for w in plan.decodes if w.sequence.order == 0] == [0]
        chunks += [w.count for w in plan.prefills]
    # 0.1 s of budget less 0.01 s for the decode step, at 2 ms a token
    assert chunks[0] == 45
    assert min(chunks[:-1]) >= LEAST_CHUNK


def test_beside_a_stream_a_sequence_waits_while_its_prefix_comes_back_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulation = Simulation()
    parts = [True, True, False]
    monkeypatch.setattr(simulation.cache, "fetch", lambda *_: parts.pop(0))
    simulation.add(0, [1] * 20, 30)
    simulation.step()
    assert len(parts) == 3, "nobody waits: all of it may come back at once"
    simulation.add(1, [2] * 20, 5)
    for still_to_come in (2, 1, 0):
        plan = simulation.step()
        assert [work.sequence.order for work in plan.decodes] == [0]
        assert len(parts) == still_to_come
        assert (1 in simulation.admitted) == (not parts)


def test_a_prefix_that_comes_back_in_parts_does_not_go_again_meanwhile() -> None:
    """Beside the long steps of a prompt, what came before the last step has long been unused."""
    simulation = Simulation(cells=16_000, batch_size=512)
    simulation.pace.observe(sequences=0, decode_tokens=0, prefill_tokens=500, seconds=0.05)
    prefix = [1 + n % 7 for n in range(1500)]
    simulation.add(0, prefix, answer=1)
    while 0 not in simulation.ended:
        simulation.step()
    while simulation.scheduler.tidy():
        pass
    simulation.add(1, [8] * 20, answer=100)
    simulation.add(2, [9] * 9000, answer=1)
    for _ in range(5):
        simulation.step()
        simulation.scheduler.tidy()
    assert simulation.cache.match(SHARED, np.array(prefix, dtype=np.int32), 1500) == 0
    simulation.add(3, [*prefix, 8], answer=1)
    for _ in range(4):
        simulation.step()
        simulation.scheduler.tidy()
    assert 3 in simulation.admitted
    assert simulation.states[3].cached == 1500


def test_prefixes_move_again_once_none_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation()
    simulation.add(0, [1] * 20, 30)
    simulation.step()
    monkeypatch.setattr(simulation.cache, "fetch", lambda *_: True)
    monkeypatch.setattr(simulation.cache, "tidy", lambda **_: True)
    simulation.add(1, [2] * 20, 5)
    simulation.step()
    assert not simulation.scheduler.tidy()
    simulation.cancel(1)
    assert simulation.scheduler.tidy()


def test_nobody_waits_for_the_prefix_of_a_sequence_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulation = Simulation()
    simulation.add(0, [1] * 20, 30)
    simulation.step()
    stopped: list[None] = []
    monkeypatch.setattr(simulation.cache, "fetch", lambda *_: True)
    monkeypatch.setattr(simulation.cache, "stop_fetching", lambda: stopped.append(None))
    for order in (1, 2):
        simulation.add(order, [2] * 20, 5)
    simulation.step()
    simulation.cancel(2)
    assert not stopped, "it waited behind the other"
    simulation.cancel(1)
    assert len(stopped) == 1


def test_an_idle_server_prefills_whole_batches() -> None:
    simulation = Simulation(cells=4000, batch_size=512)
    simulation.add(0, [1] * 1200, answer=1)
    assert [w.count for w in simulation.step().prefills] == [512]


def test_followers_wait_for_the_leader_and_not_for_each_other() -> None:
    simulation = Simulation(cells=4000, batch_size=64)
    for order in range(4):
        simulation.add(order, [*range(1000, 1200), order + 1] * 1, answer=3)
    started: dict[int, int] = {}
    while len(simulation.ended) < 4:
        simulation.step()
        for order in simulation.admitted:
            started.setdefault(order, simulation.steps)
    assert started[1] == started[2] == started[3]
    assert started[0] < started[1]


def test_the_newest_gives_way_first() -> None:
    simulation = Simulation(cells=64, batch_size=64)
    for order in range(3):
        simulation.add(order, [10 + order] * 10, answer=30)
    preempted = []
    while len(simulation.ended) < 3:
        preempted += [s.order for s in simulation.step().preempted]
    assert preempted
    assert preempted[0] == 2
    assert 0 not in preempted


def test_a_sequence_that_gave_way_does_not_come_back_before_there_is_room() -> None:
    simulation = Simulation(cells=128, batch_size=64)
    simulation.add(0, [11] * 40, answer=60)
    simulation.add(1, [12] * 40, answer=20)
    preempted = 0
    while len(simulation.ended) < 2:
        preempted += len(simulation.step().preempted)
    assert preempted <= 1


def test_adapters_take_turns_and_none_waits_longer_than_the_turns_of_the_others() -> None:
    simulation = Simulation(cells=2000, parallel=6)
    for order, adapters in enumerate([None, PIRATE, POET, None, PIRATE, POET]):
        scope = CacheScope(adapter=adapters.identity if adapters else "")
        simulation.add(order, [order + 1] * 5, answer=60, scope=scope, adapters=adapters)
    kinds = []
    while len(simulation.ended) < 6:
        kinds.append(simulation.step().adapters)
    turns = [
        kind for kind, before in zip(kinds, [POET, *kinds], strict=False) if kind is not before
    ]
    assert {tuple(turns[index : index + 3]) for index in range(0, 30, 3)} == {(None, PIRATE, POET)}


def test_a_prompt_with_one_adapter_leaves_room_to_streams_with_another() -> None:
    simulation = Simulation(cells=4000, batch_size=512, budget=0.1)
    simulation.add(0, [1] * 10, answer=100)
    simulation.step()
    for _ in range(5):
        simulation.pace.observe(sequences=1, decode_tokens=1, prefill_tokens=0, seconds=0.01)
        simulation.pace.observe(sequences=0, decode_tokens=0, prefill_tokens=100, seconds=0.2)
    simulation.add(1, [2] * 500, answer=1, scope=CacheScope(adapter="pirate"), adapters=PIRATE)
    chunks = []
    while 1 not in simulation.ended:
        chunks += [work.count for work in simulation.step().prefills]
    assert max(chunks) == 64


# --- giving way ---


def orders(plan: Step) -> set[int]:
    """Which sequences a step computes."""
    return {work.sequence.order for work in (*plan.decodes, *plan.prefills)}


def test_a_request_takes_the_place_of_one_that_gives_way_at_once() -> None:
    simulation = Simulation(parallel=2)
    for order in range(3):
        simulation.add(order, [10 + order] * 5, answer=40, gives_way=True)
    simulation.step()
    simulation.step()
    simulation.add(3, [50] * 5, answer=5)
    plan = simulation.step()
    assert [sequence.order for sequence in plan.preempted] == [1]
    assert orders(plan) == {3}
    while len(simulation.ended) < 4:
        simulation.step()
    assert simulation.ended[0] == 3


def test_a_request_takes_the_cells_of_those_that_give_way() -> None:
    simulation = Simulation(cells=100, parallel=4, batch_size=64)
    for order in range(2):
        simulation.add(order, [10 + order] * 30, answer=15, gives_way=True)
    while any(state.in_prompt for state in simulation.states.values()):
        simulation.step()
    simulation.add(2, [50] * 60, answer=5)
    plan = simulation.step()
    assert [sequence.order for sequence in plan.preempted] == [1]
    assert orders(plan) == {2}


def test_those_that_give_way_pause_while_another_prompt_is_read() -> None:
    simulation = Simulation(cells=2000, parallel=4, batch_size=64)
    simulation.add(0, [10] * 5, answer=100, gives_way=True)
    simulation.add(1, [11] * 500, answer=5, gives_way=True)
    simulation.step()
    for _ in range(5):
        simulation.pace.observe(sequences=1, decode_tokens=1, prefill_tokens=0, seconds=0.01)
        simulation.pace.observe(sequences=0, decode_tokens=0, prefill_tokens=60, seconds=0.3)
    simulation.add(2, [50] * 200, answer=3)
    while simulation.states[2].in_prompt:
        plan = simulation.step()
        assert orders(plan) == {2}
        assert plan.tokens in {64, 200 % 64}, "its chunks are as large as if it were alone"


def test_beside_an_answer_one_that_gives_way_goes_on() -> None:
    simulation = Simulation(cells=2000, parallel=8, batch_size=64)
    for order in range(4):
        simulation.add(order, [10 + order] * 5, answer=30, gives_way=True)
    simulation.add(4, [14] * 200, answer=5, gives_way=True)
    simulation.add(5, [50] * 5, answer=300)
    simulation.step()
    while len(simulation.ended) < 5:
        plan = simulation.step()
        assert 5 in orders(plan)
        assert len(orders(plan)) == 2
        assert sum(work.count for work in plan.prefills) <= LEAST_CHUNK
    assert 5 not in simulation.ended


def test_where_rows_cost_nothing_more_that_give_way_go_on() -> None:
    simulation = Simulation(cells=2000, parallel=8, batch_size=64)
    simulation.pace.observe(sequences=1, decode_tokens=1, prefill_tokens=0, seconds=0.01)
    for _ in range(50):
        simulation.pace.observe(sequences=1, decode_tokens=8, prefill_tokens=0, seconds=0.0131)
    for order in range(4):
        simulation.add(order, [10 + order] * 5, answer=30, gives_way=True)
    simulation.step()
    simulation.add(5, [50] * 5, answer=30)
    simulation.step()
    assert orders(simulation.step()) == {0, 1, 2, 3, 5}


def test_a_prompt_that_gives_way_is_read_in_short_steps() -> None:
    simulation = Simulation(cells=4000, batch_size=512)
    for _ in range(20):
        simulation.pace.observe(sequences=0, decode_tokens=0, prefill_tokens=40, seconds=0.04)
    simulation.add(0, [1] * 300, answer=1, gives_way=True)
    simulation.add(1, [2] * 300, answer=1, gives_way=True)
    while len(simulation.ended) < 2:
        # 0.05 s at 1 ms a token
        assert simulation.step().tokens <= 50


def test_a_request_does_not_wait_for_a_prefix_of_one_that_gives_way() -> None:
    simulation = Simulation(cells=4000, batch_size=64)
    shared = list(range(100, 400))
    simulation.add(0, [*shared, 1], answer=3, gives_way=True)
    simulation.step()
    simulation.add(1, [*shared, 2], answer=3)
    assert orders(simulation.step()) == {1}

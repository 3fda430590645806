from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from server.engine.scheduling.threads import ThreadGovernor


def run(
    governor: ThreadGovernor,
    step: Callable[[int], float],
    seconds: float,
    start: float,
    share: float = 1.0,
) -> tuple[float, int]:
    """Steps of ``step(threads)`` seconds for a while; returns (end, steps done).

    The threads get ``share`` of the processor time they want.
    """
    now, steps = start, 0
    while now < start + seconds:
        took = step(governor.threads)
        now += took
        steps += 1
        cpu = share * took * governor.threads
        governor.observe(shape=1, seconds=took, cpu_seconds=cpu, now=now)
    return now, steps


def skip(
    governor: ThreadGovernor, *, now: float, seconds: float = 0.05, share: float = 1.0
) -> None:
    governor.skip(seconds=seconds, cpu_seconds=share * seconds * governor.threads, now=now)


def alone(threads: int) -> float:
    return 0.020 / threads


def beside_a_busy_process(threads: int) -> float:
    return {1: 0.020, 2: 0.090}[threads]


def test_all_threads_are_used_on_an_idle_machine() -> None:
    governor = ThreadGovernor(2)
    _, steps = run(governor, alone, 60, 0)
    assert steps > 0.999 * 60 / alone(2), "it tried fewer although it had all it wanted"


def test_a_busy_neighbour_costs_at_most_a_tenth_of_the_best_fixed_count() -> None:
    governor = ThreadGovernor(2)
    now, _ = run(governor, alone, 10, 0)
    _, steps = run(governor, beside_a_busy_process, 60, now)
    assert steps > 0.9 * 60 / beside_a_busy_process(1)


def test_a_neighbour_that_was_there_from_the_start_is_noticed() -> None:
    governor = ThreadGovernor(2)
    _, steps = run(governor, beside_a_busy_process, 60, 0, share=0.75)
    assert steps > 0.85 * 60 / beside_a_busy_process(1)


def test_steps_from_before_a_neighbour_came_are_not_mixed_with_those_after() -> None:
    governor = ThreadGovernor(2)
    now, _ = run(governor, alone, 0.03, 0)
    now, steps = run(governor, beside_a_busy_process, 1, now)
    assert governor.threads == 1
    assert steps > 0.75 / beside_a_busy_process(1), "a trial that is far faster is enough"


def test_all_threads_come_back_when_the_neighbour_is_gone() -> None:
    governor = ThreadGovernor(2)
    now, _ = run(governor, beside_a_busy_process, 20, 0, share=0.75)
    assert governor.threads == 1
    now, _ = run(governor, alone, 30, now)
    assert governor.threads == 2


def test_a_machine_whose_speed_changes_keeps_its_threads() -> None:
    noise = random.Random(0)
    governor = ThreadGovernor(2)
    speed = 1.0

    def drifting(threads: int) -> float:
        nonlocal speed
        if noise.random() < 0.1:
            speed = noise.choice([1.0, 1.2, 1.5])
        return speed * (0.010 if threads == 2 else 0.015)

    now, with_all = 0.0, 0
    for _ in range(20_000):
        with_all += governor.threads == 2
        took = drifting(governor.threads)
        now += took
        cpu = took * governor.threads
        governor.observe(shape=1, seconds=took, cpu_seconds=cpu, now=now)
    assert with_all > 0.97 * 20_000


def test_a_machine_that_stumbles_now_and_then_is_no_reason_for_a_trial() -> None:
    governor = ThreadGovernor(2)
    now, tried = 0.0, 0
    for index in range(10_000):
        took = alone(governor.threads) * (2.5 if index % 50 < 5 else 1)
        now += took
        tried += governor.threads < 2
        cpu = took * governor.threads
        governor.observe(shape=1, seconds=took, cpu_seconds=cpu, now=now)
    assert tried == 0


def test_what_was_slow_for_a_moment_only_keeps_its_threads() -> None:
    governor = ThreadGovernor(2)
    now, _ = run(governor, alone, 5, 0)
    slow = now + 0.3
    now, _ = run(governor, lambda n: 0.025 if n == 2 else 0.020, slow - now, now)
    _, steps = run(governor, alone, 10, now)
    assert governor.threads == 2
    assert steps > 0.98 * 10 / alone(2), "one look at fewer threads is enough"


def test_a_prompt_beside_a_trial_has_all_threads() -> None:
    governor = ThreadGovernor(2)
    now, _ = run(governor, alone, 5, 0)
    while governor.threads == 2:
        now += 0.09
        governor.observe(shape=1, seconds=0.09, cpu_seconds=0.17, now=now)
    assert governor.usual_threads == 2


def test_prompts_keep_their_threads_where_only_single_tokens_gain_from_fewer() -> None:
    governor = ThreadGovernor(2)
    run(governor, lambda n: {1: 0.0077, 2: 0.0090}[n], 30, 0, share=0.85)
    assert governor.threads == 1
    assert governor.usual_threads == 2


def test_prompts_have_fewer_threads_beside_a_busy_process() -> None:
    governor = ThreadGovernor(2)
    now, _ = run(governor, alone, 5, 0)
    run(governor, lambda n: {1: 0.020, 2: 0.040}[n], 30, now, share=0.75)
    assert governor.threads == governor.usual_threads == 1


def test_steps_that_cannot_be_compared_end_a_trial() -> None:
    governor = ThreadGovernor(2)
    now = 0.0
    while governor.threads == 2:
        now += 0.09
        governor.observe(shape=1, seconds=0.09, cpu_seconds=0.1, now=now)
    skip(governor, now=now)
    assert governor.threads == 1, "a draft now and then must not keep a trial from its end"
    for _ in range(6):
        skip(governor, now=now)
    assert governor.threads == 2


def test_all_threads_come_back_where_no_step_can_be_compared() -> None:
    governor = ThreadGovernor(2)
    now, _ = run(governor, beside_a_busy_process, 20, 0, share=0.75)
    assert governor.threads == 1
    skip(governor, now=now + 0.1)
    assert governor.threads == 1
    skip(governor, now=now + 25)
    assert governor.threads == 2


def test_steps_of_seconds_are_answered_at_once() -> None:
    governor = ThreadGovernor(2)
    now, _ = run(governor, alone, 10, 0)
    took: list[float] = []
    while governor.threads == 2 or len(took) < 20:
        took.append({1: 0.02, 2: 3.0}[governor.threads])
        now += took[-1]
        cpu = 0.7 * took[-1] * governor.threads
        governor.observe(shape=1, seconds=took[-1], cpu_seconds=cpu, now=now)
    assert took.count(3.0) <= 3


def test_a_long_step_tells_how_many_cores_there_are() -> None:
    governor = ThreadGovernor(8)
    skip(governor, now=1, seconds=0.5, share=0.75)
    assert governor.threads == 8, "some waiting for each other is usual"
    skip(governor, now=2, seconds=0.1, share=0.5)
    assert governor.threads == 8, "a short step may have been interrupted once"
    skip(governor, now=3, seconds=0.5, share=0.5)
    assert governor.threads == 4
    governor.observe(shape=1, seconds=0.5, cpu_seconds=0.5, now=4)
    assert governor.threads == 1


def test_threads_that_wait_for_a_gpu_do_not_lack_cores() -> None:
    governor = ThreadGovernor(8, waits_elsewhere=True)
    skip(governor, now=1, seconds=0.5, share=0.1)
    assert governor.threads == 8


def test_a_long_prompt_beside_a_neighbour_rarely_gets_all_threads_back() -> None:
    governor = ThreadGovernor(2)
    now, with_all = 0.0, 0
    while now < 120:
        threads = governor.threads
        with_all += threads == 2
        took = {1: 1.0, 2: 2.0}[threads]
        now += took
        skip(governor, now=now, seconds=took, share={1: 1.0, 2: 0.5}[threads])
    assert 2 <= with_all <= 10


def test_the_next_neighbour_is_waited_for_no_longer_than_the_first() -> None:
    governor = ThreadGovernor(2)

    def seconds_on_one_thread(start: float) -> float:
        """A neighbour that leaves as soon as it has cost a thread."""
        skip(governor, now=start, seconds=0.5, share=0.5)
        assert governor.threads == 1
        now = start
        while governor.threads == 1:
            now += 0.5
            skip(governor, now=now, seconds=0.5)
        return now - start

    first = seconds_on_one_thread(0)
    for minute in range(1, 7):  # one that stays: each look whether it has gone is in vain
        skip(governor, now=60.0 * minute, seconds=0.5, share=0.5)
        skip(governor, now=60.0 * minute + 30, seconds=0.5)
    assert governor.threads == 2
    skip(governor, now=450, seconds=0.5)
    assert seconds_on_one_thread(480) == first


def test_one_step_tells_that_the_neighbour_is_still_there() -> None:
    governor = ThreadGovernor(2)
    now, _ = run(governor, beside_a_busy_process, 2, 0, share=0.75)
    assert governor.threads == 1
    steps = []
    while now < 60:
        threads = governor.threads
        steps.append(threads)
        took = beside_a_busy_process(threads)
        now += took
        governor.observe(shape=1, seconds=took, cpu_seconds=0.75 * took * threads, now=now)
    assert 0 < steps.count(2) <= 8


class Machine:
    """Two cores that count how long they idle beside a server and, until ``gone``, a neighbour."""

    def __init__(self, gone: float) -> None:
        self.now, self.idle, self.gone = 0.0, 0.0, gone
        self.steps: list[int] = []
        self.governor = ThreadGovernor(2, idle_core_seconds=lambda: self.idle)

    def rest(self, seconds: float) -> None:
        self.now += seconds
        self.idle += seconds * (1 if self.now < self.gone else 2)

    def step(self, *, draft: bool = False) -> None:
        threads = self.governor.threads
        neighbour = self.now < self.gone
        took = (beside_a_busy_process if neighbour else alone)(threads)
        cpu = took if neighbour else took * threads
        self.now += took
        self.idle += 0 if neighbour else took * (2 - threads)
        self.steps.append(threads)
        times = {"seconds": took, "cpu_seconds": cpu, "now": self.now}
        if draft:
            self.governor.skip(**times)
        else:
            self.governor.observe(shape=1, **times)


def test_a_machine_that_tells_of_idle_cores_needs_no_look_while_there_are_none() -> None:
    machine = Machine(gone=math.inf)
    while machine.now < 60:
        machine.step()
    assert machine.governor.threads == 1
    assert machine.steps.count(2) <= 6, "no more than it took to notice the neighbour"


@pytest.mark.parametrize("draft", [False, True])
def test_idle_cores_bring_all_threads_back(draft: bool) -> None:
    machine = Machine(gone=20)
    while machine.now < 20:
        machine.step()
    assert machine.governor.threads == 1
    while machine.now < 23:
        machine.step(draft=draft)
    assert machine.governor.threads == 2


def test_cores_that_idle_while_the_server_rests_prove_nothing() -> None:
    machine = Machine(gone=math.inf)
    while machine.now < 2:
        machine.step()
    before = machine.steps.count(2)
    while machine.now < 60:
        for _ in range(10):
            machine.step()
        machine.rest(0.2)
    assert machine.steps.count(2) == before


def test_more_sequences_per_step_are_no_reason_for_a_trial() -> None:
    governor = ThreadGovernor(4)
    now = 0.0
    for shape in (1, 2, 4, 8, 16):
        for _ in range(5):
            now += 0.01 * shape
            governor.observe(shape=shape, seconds=0.01 * shape, cpu_seconds=0.04 * shape, now=now)
    assert governor.threads == 4


def test_one_thread_stays_one() -> None:
    governor = ThreadGovernor(1)
    run(governor, lambda _: 0.5, 60, 0)
    assert governor.threads == 1

"""The engine over a fake backend whose next token depends on every cell before it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.core.events import Delta, Failed, Finished, PromptScored
from server.core.request import CacheScope
from server.core.sampling import Sampling
from server.engine.batch import Batch
from server.engine.scheduling import scheduler
from tests.unit.engine.engine_rig import Rig
from tests.unit.engine.fake_backend import MEMORIES, FakeBackend


class TrialOfOneThread:
    """A governor that tries one thread and usually has two."""

    threads, usual_threads = 1, 2

    def observe(self, **_: object) -> None: ...

    def skip(self, **_: object) -> None: ...


def test_only_steps_without_prompts_and_drafts_run_on_the_threads_of_a_trial() -> None:
    rig = Rig(FakeBackend())
    rig.engine._decoder._governor = TrialOfOneThread()  # type: ignore[assignment]
    rig.submit(1, [1, 2, 3], max_tokens=5)
    rig.steps(1)
    assert rig.backend.threads != 1, "the prompt has the usual threads"
    rig.steps(1)
    assert rig.backend.threads == 1
    rig.submit(2, list(range(20, 45)), max_tokens=2)
    rig.steps(1)
    assert rig.backend.threads == 2


def test_requests_that_arrive_together_are_decoded_together() -> None:
    rig = Rig(FakeBackend())
    for i in range(4):
        rig.submit(i, [10 + i, 2, 3])
    rig.run()
    for i in range(4):
        assert rig.text(i) == rig.expected([10 + i, 2, 3])
    assert max(len({sequence for sequence, _ in batch}) for batch in rig.backend.batches) == 4


def test_a_shared_prefix_is_computed_once_when_requests_arrive_together() -> None:
    rig = Rig(FakeBackend(batch_size=20))
    prefix = list(range(1, 41))
    for i in range(4):
        rig.submit(i, [*prefix, 45 + i], max_tokens=1)
    rig.run()
    assert rig.backend.decoded_tokens == 41 + 3
    assert [rig.finished(i).usage.cached_tokens for i in range(4)] == [0, 40, 40, 40]
    for i in range(4):
        assert rig.text(i) == rig.expected([*prefix, 45 + i], 1)


def test_whole_states_are_shared_at_the_token_where_prompts_part() -> None:
    rig = Rig(FakeBackend(batch_size=64, partial_removal=False))
    prefix = list(range(1, 41))
    for i in range(3):
        rig.submit(i, [*prefix, 45 + i, 46 + i], max_tokens=2)
    rig.run()
    assert [rig.finished(i).usage.cached_tokens for i in range(3)] == [0, 40, 40]
    for i in range(3):
        assert rig.text(i) == rig.expected([*prefix, 45 + i, 46 + i], 2)


@pytest.mark.parametrize("batch_size", [7, 64])
def test_a_chat_whose_template_drops_thoughts_computes_only_its_last_turn_again(
    batch_size: int,
) -> None:
    rig = Rig(FakeBackend(batch_size=batch_size, partial_removal=False, kv_cells=400))
    opening, end = [41], [42]
    chat = [1 + index % 30 for index in range(70)]
    border = 0
    for turn in range(4):
        prompt = [*chat, *opening]
        rig.submit(turn, prompt, max_tokens=9, turn_border=len(chat), ignore_eos=True)
        rig.run()
        assert rig.text(turn) == rig.expected(prompt, 9)
        assert rig.finished(turn).usage.cached_tokens == border
        border = len(chat)
        # What the model thought, 6 tokens, does not come back; what it said does.
        said = rig.backend.greedy(prompt, 9)[6:]
        chat += [*opening, *said, *end, *range(1, 5 + turn)]


def test_a_state_is_kept_within_a_long_prompt_for_those_that_leave_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "_STATE_CELLS", 80)
    rig = Rig(FakeBackend(batch_size=64, partial_removal=False, kv_cells=800))
    prompt = [1 + index % 40 for index in range(200)]
    rig.submit(0, prompt, max_tokens=2)
    rig.submit(1, [*prompt[:170], 45, 46], max_tokens=2)
    rig.run()
    rig.submit(2, [*prompt[:165], 47, 48], max_tokens=2)
    rig.run()
    assert rig.finished(2).usage.cached_tokens == 160
    assert rig.text(2) == rig.expected([*prompt[:165], 47, 48], 2)


def test_several_answers_of_one_request_compute_the_prompt_once() -> None:
    rig = Rig(FakeBackend(batch_size=64))
    prompt = list(range(1, 41))
    rig.submit(1, prompt, n=3, max_tokens=4)
    rig.run()
    expected = rig.expected(prompt, 4)
    assert [rig.text(1, i) for i in range(3)] == [expected] * 3
    prompt_tokens = sum(1 for batch in rig.backend.batches for _, p in batch if p < len(prompt))
    assert prompt_tokens == len(prompt) + 2


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_a_batch_smaller_than_a_chunk_or_a_draft_is_enough(batch_size: int) -> None:
    rig = Rig(FakeBackend(batch_size=batch_size))
    prompts = [[i, *range(2, 16)] for i in (1, 2)]
    for i, prompt in enumerate(prompts):
        rig.submit(i, prompt, max_tokens=14, prediction=rig.backend.greedy(prompt, 14))
    rig.run()
    for i, prompt in enumerate(prompts):
        assert rig.text(i) == rig.expected(prompt, 14)


def test_answers_with_one_seed_differ_from_each_other_and_repeat() -> None:
    texts = []
    for _ in range(2):
        rig = Rig(FakeBackend())
        rig.submit(1, [1, 2, 3], n=2, sampling=Sampling(temperature=2.0, seed=7), ignore_eos=True)
        rig.run()
        texts.append([rig.text(1, 0), rig.text(1, 1)])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]


def test_when_cells_run_out_the_newest_gives_way_and_still_ends_with_the_same_text() -> None:
    rig = Rig(FakeBackend(kv_cells=48, batch_size=48))
    prompts = [[10 * i + j for j in range(1, 9)] for i in range(4)]
    for i, prompt in enumerate(prompts):
        rig.submit(i, prompt, max_tokens=24, ignore_eos=False)
    rig.run()
    assert rig.engine.counters.preemptions > 0
    for i, prompt in enumerate(prompts):
        assert rig.text(i) == rig.expected(prompt, 24)


def test_a_cancelled_request_frees_its_cells_and_says_nothing_more() -> None:
    rig = Rig(FakeBackend())
    rig.submit(1, list(range(1, 30)), max_tokens=50, ignore_eos=True)
    rig.steps(5)
    assert rig.engine._cache.cells_pinned > 0
    rig.engine.cancel(1)
    rig.events.clear()
    rig.steps(2)
    assert rig.engine._cache.cells_pinned == 0
    assert rig.events == []


def test_a_request_cancelled_within_its_prompt_computes_no_further_chunk() -> None:
    rig = Rig(FakeBackend(batch_size=16))
    rig.submit(1, list(range(1, 49)), max_tokens=4)
    rig.submit(2, [49, 7, 7], max_tokens=20, ignore_eos=True)
    rig.steps(1)
    (reading,) = [s for s in rig.engine._scheduler.running if s.in_prompt]
    (other,) = [s for s in rig.engine._scheduler.running if s is not reading]
    cancelled = {reading.sequence_id}
    before = len(rig.backend.batches)
    rig.engine.cancel(1)
    rig.engine._receive()
    assert rig.engine._cache.cells_pinned == other.computed
    rig.run()
    computed = {sequence for batch in rig.backend.batches[before:] for sequence, _ in batch}
    assert not computed & cancelled
    assert {event.id for event in rig.events} == {2}


def test_what_one_key_asked_speeds_up_no_other() -> None:
    rig = Rig(FakeBackend())
    prompt = list(range(1, 31))
    rig.submit(1, prompt, scope=CacheScope(api_key="one"))
    rig.submit(2, prompt, scope=CacheScope(api_key="two"))
    rig.run()
    rig.submit(3, prompt, scope=CacheScope(api_key="one"))
    rig.submit(4, prompt, scope=CacheScope(api_key="three"))
    rig.run()
    cached = [rig.finished(i).usage.cached_tokens for i in (1, 2, 3, 4)]
    assert cached == [0, 0, len(prompt) - 1, 0]


def test_what_one_adapter_computed_serves_no_other() -> None:
    rig = Rig(FakeBackend())
    prompt = list(range(1, 31))
    rig.submit(1, prompt, scope=CacheScope(api_key="one", adapter="poet"))
    rig.run()
    rig.submit(2, prompt, scope=CacheScope(api_key="one"))
    rig.submit(3, prompt, scope=CacheScope(api_key="one", adapter="poet"))
    rig.run()
    assert [rig.finished(i).usage.cached_tokens for i in (2, 3)] == [0, len(prompt) - 1]


def test_a_whole_state_computed_again_still_fits_when_the_first_is_evicted() -> None:
    """Its cells are then there only once, though they were counted as a copy."""
    rig = Rig(FakeBackend(kv_cells=128, sequence_ids=8, partial_removal=False))
    shared = [7 * i % 49 + 1 for i in range(50)]
    rig.submit(1, [*shared, 3, 4, 5], max_tokens=4)
    rig.run()
    prompt = [*shared, *[9, 8] * 30]
    rig.submit(2, prompt, max_tokens=4)
    rig.run()
    assert rig.text(2) == rig.expected(prompt, 4)


def test_used_cells_can_be_read_from_another_thread() -> None:
    class Unhurried(FakeBackend):
        def decode(self, batch: Batch) -> None:
            time.sleep(0.0005)  # lets the other thread have its turn
            super().decode(batch)

    rig = Rig(Unhurried())
    threading.Thread(target=rig.engine.run, daemon=True).start()
    rig.submit(1, [1, 2, 3], max_tokens=10_000, ignore_eos=True, length_limit=200)
    seen = []
    while not any(isinstance(event, Finished) for event in rig.events):
        seen.append(rig.engine.cells_used)
    rig.engine.stop()
    assert 0 < max(seen) <= 200


def test_at_rest_only_the_prefix_last_used_stays_in_cells() -> None:
    rig = Rig(FakeBackend())
    prompts = [[i, 5, 6, 7, 8, 9] for i in range(1, 5)]
    thread = threading.Thread(target=rig.engine.run, daemon=True)
    for i, prompt in enumerate(prompts):
        rig.submit(i, prompt, max_tokens=4)
    thread.start()
    while sum(isinstance(event, Finished) for event in rig.events) < len(prompts):
        time.sleep(0.001)
    deadline = time.monotonic() + 30
    while rig.backend.cells_used > 10 and time.monotonic() < deadline:
        time.sleep(0.001)
    rig.engine.stop()
    thread.join()
    assert 0 < rig.backend.cells_used <= 10
    before = rig.engine.counters.cached_tokens
    for i, prompt in enumerate(prompts):
        rig.submit(10 + i, prompt, max_tokens=4)
    rig.run()
    assert rig.engine.counters.cached_tokens - before == 4 * 5
    for i, prompt in enumerate(prompts):
        assert rig.text(10 + i) == rig.expected(prompt, 4)


def test_what_comes_at_once_is_not_delayed_by_tidying_up() -> None:
    rig = Rig(FakeBackend())
    for i in range(1, 5):
        rig.submit(i, [i, 5, 6, 7, 8, 9], max_tokens=4)
    rig.run()
    before = rig.backend.cells_used
    rig.submit(5, [1, 5, 6, 7], max_tokens=4)
    rig.engine._rest()
    assert rig.backend.cells_used == before
    assert rig.engine._answers


def test_idle_time_does_not_count_as_time_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(FakeBackend())
    now = time.monotonic
    for request_id, hours in enumerate((0, 8)):
        monkeypatch.setattr(time, "monotonic", lambda hours=hours: now() + 3600 * hours)
        rig.submit(request_id, [1, 2, 3])
        rig.run()
    assert rig.engine.seconds_until_free() < 60


def test_a_full_queue_has_room_when_answers_usually_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    class Slow(FakeBackend):
        def decode(self, batch: Batch) -> None:
            clock[0] += 2
            super().decode(batch)

    rig = Rig(Slow(), parallel=1)
    assert rig.engine.seconds_until_free() == 1
    for request_id in range(3):
        rig.submit(request_id, [1 + request_id, 2, 3], max_tokens=5, ignore_eos=True)
    rig.run()
    assert rig.engine.seconds_until_free() == pytest.approx(10)


def test_an_idle_engine_forgets_what_was_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(FakeBackend())
    monkeypatch.setattr(rig.engine._cache, "forget_ahead", rig.engine.stop)
    thread = threading.Thread(target=rig.engine.run, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_a_waiting_request_can_be_cancelled() -> None:
    rig = Rig(FakeBackend(), parallel=1)
    rig.submit(1, [1, 2, 3], max_tokens=4)
    rig.submit(2, [4, 5, 6], max_tokens=4)
    rig.steps(1)
    rig.engine.cancel(2)
    rig.run()
    assert {e.id for e in rig.events} == {1}


def test_what_comes_during_a_step_is_waiting_already() -> None:
    rig = Rig(FakeBackend(), parallel=1)
    rig.submit(1, [1, 2, 3], max_tokens=4)
    rig.steps(1)
    rig.submit(2, [4, 5, 6], max_tokens=4, n=2)
    assert rig.engine.waiting == 2
    rig.steps(1)
    assert (rig.engine.active, rig.engine.waiting) == (1, 2)
    rig.run()
    assert (rig.engine.active, rig.engine.waiting) == (0, 0)


def test_a_stop_string_ends_the_answer_and_is_left_out() -> None:
    rig = Rig(FakeBackend())
    words = rig.backend.greedy([5, 6, 7], 6)
    rig.submit(1, [5, 6, 7], stops=[f"{words[2]}><{words[3]}"])
    rig.run()
    assert rig.text(1) == f"<{words[0]}><{words[1]}><"
    assert rig.finished(1).reason == "stop"


def test_max_tokens_ends_with_length_and_counts() -> None:
    rig = Rig(FakeBackend())
    rig.submit(1, [5, 6, 7], max_tokens=3, ignore_eos=True, sampling=Sampling(seed=1))
    rig.run()
    assert rig.finished(1).reason == "length"
    assert rig.finished(1).usage.completion_tokens == 3
    assert rig.finished(1).usage.prompt_tokens == 3


def test_the_context_limit_ends_an_answer_with_length() -> None:
    rig = Rig(FakeBackend())
    rig.submit(1, [5, 6, 7], max_tokens=100, length_limit=6, ignore_eos=True)
    rig.run()
    assert rig.finished(1).reason == "length"
    assert rig.finished(1).usage.completion_tokens == 3


def test_prompt_scores_follow_the_model_and_survive_a_cached_prefix() -> None:
    rig = Rig(FakeBackend(batch_size=16, outputs_per_batch=4))
    prompt = list(range(1, 20))
    rig.submit(1, prompt, max_tokens=1)
    rig.run()
    rig.submit(2, prompt, max_tokens=0, echo=True, logprobs=1)
    rig.run()
    (scored,) = [e for e in rig.events if isinstance(e, PromptScored)]
    assert [t.id for t in scored.tokens] == prompt
    assert scored.tokens[0].logprob is None
    for place in range(1, len(prompt)):
        row = rig.backend.row_after(prompt[:place]).astype(float)
        expected = row[prompt[place]] - np.log(np.exp(row - row.max()).sum()) - row.max()
        assert scored.tokens[place].logprob == pytest.approx(expected, abs=1e-5)
    assert rig.finished(2).usage.completion_tokens == 0


@pytest.mark.parametrize(("ours", "count"), [(True, 26), (False, 64 - 4)])
def test_deep_prompts_get_tiles_of_llama_cpps_attention_alone(ours: bool, count: int) -> None:
    pace = Rig(FakeBackend(repeats=ours)).engine._pace
    pace.observe(sequences=4, decode_tokens=4, prefill_tokens=0, seconds=0.02)
    pace.observe(sequences=0, decode_tokens=0, prefill_tokens=100, seconds=0.3)
    assert pace.prefill_tokens_beside_streams(512, 4, deep=True) == count


class Words(FakeBackend):
    """Each token is a word behind a space."""

    def piece(self, token: int) -> bytes:
        return b" word"


def test_a_space_that_the_text_lacks_is_an_unseen_byte_of_its_token() -> None:
    rig = Rig(Words())
    rig.submit(1, [5], max_tokens=2, ignore_eos=True, logprobs=0, strip_leading_space=True)
    rig.run()
    deltas = [event for event in rig.events if isinstance(event, Delta)]
    assert "".join(delta.text for delta in deltas) == "word word"
    assert [token.unseen for delta in deltas for token in delta.logprobs] == [1, 0]


requests = st.lists(
    st.tuples(
        st.integers(0, 30),  # arrives at this step
        st.lists(st.integers(1, 3), min_size=1, max_size=25),  # prompt
        st.integers(1, 20),  # max_tokens
        st.integers(1, 3),  # n
        st.booleans(),  # cancelled later
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(requests, st.sampled_from([*MEMORIES]), st.booleans(), st.sampled_from([24, 8, 3]))
# Here a whole state continues cells that were computed twice, and the other states go first.
@example(
    [
        (0, [1], 4, 1, False),
        (0, [1], 16, 1, False),
        (4, [1, 3, 3, 3, 3], 5, 3, False),
        (4, [1, 3, 3, 3, 3, 1, 1], 1, 1, False),
        (28, [1, 1, 1], 1, 1, False),
        (3, [1, 1, 1, 1, 1, 1, 1, 1, 1], 15, 3, False),
    ],
    "whole states",
    False,
    24,
)
def test_any_arrival_pattern_ends_with_the_text_of_a_lone_request(
    arrivals: list[tuple[int, list[int], int, int, bool]],
    memory: str,
    lookup: bool,
    batch_size: int,
) -> None:
    """No sequence lost, none twice in a batch, cells never over-committed, every one ends."""
    rig = Rig(
        FakeBackend(kv_cells=64, batch_size=batch_size, sequence_ids=8, **MEMORIES[memory]),
        parallel=3,
        prompt_lookup=lookup,
    )
    cancelled = set()
    for step in range(31):
        for i, (at, prompt, max_tokens, n, cancel) in enumerate(arrivals):
            if at == step:
                rig.submit(i, prompt, max_tokens=max_tokens, n=n)
            if cancel and at + 4 == step:
                rig.engine.cancel(i)
                cancelled.add(i)
        rig.steps(1)
    rig.run()
    assert not [event for event in rig.events if isinstance(event, Failed)]
    for i, (_, prompt, max_tokens, n, _) in enumerate(arrivals):
        if i not in cancelled:
            for index in range(n):
                assert rig.text(i, index) == rig.expected(prompt, max_tokens)
                rig.finished(i, index)
    assert rig.engine._cache.cells_pinned == 0

"""A model's own head saves steps where its guesses are right, and changes no text.

`FakeHead` guesses right, and fails where a token comes with another state than that before it.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.sampling import Sampling
from server.core.worker_settings import HEAD_STATES
from server.engine.backend import DecodeFailed, NoCellsLeft
from server.engine.batch import Batch
from tests.unit.engine.engine_rig import Rig
from tests.unit.engine.fake_backend import END, FakeBackend
from tests.unit.engine.fake_head import FakeHead
from tests.unit.engine.test_engine_drafts import CountedConstraint

pytestmark = pytest.mark.usefixtures("stated_costs")


class Wrong(FakeHead):
    """Guesses right once in a while."""

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = super().row_after(tokens)
        if len(tokens) % 3:
            row[int(row.argmax())] = -10
        return row


class Endless(FakeBackend):
    """Its answers do not end by themselves."""

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = super().row_after(tokens)
        row[END] = -20
        return row


def rig_with(head: type[FakeHead] = FakeHead, *, head_cells: int = 1024, **sizes: int) -> Rig:
    backend = FakeBackend(**{"kv_cells": 1024} | sizes)  # type: ignore[arg-type]
    return Rig(backend, head=head(backend, kv_cells=head_cells))


def head_of(rig: Rig) -> FakeHead:
    assert isinstance(rig.head, FakeHead)
    return rig.head


def long_prompt(backend: FakeBackend, tokens: int, first: int = 1) -> list[int]:
    """A prompt whose answer has at least so many tokens."""
    return next([i, 7] for i in range(first, 50) if len(backend.greedy([i, 7], tokens)) == tokens)


def test_right_guesses_save_steps_and_change_no_text() -> None:
    rig = rig_with()
    prompt = long_prompt(rig.backend, 60)
    rig.submit(1, prompt, max_tokens=60)
    rig.run()
    assert rig.text(1) == rig.expected(prompt, 60)
    usage = rig.finished(1).usage
    assert usage.accepted_draft_tokens == usage.draft_tokens > 30
    assert len(rig.backend.batches) == 60 - usage.accepted_draft_tokens
    assert (usage.accepted_prediction_tokens, usage.rejected_prediction_tokens) == (0, 0)


def test_wrong_guesses_are_taken_back() -> None:
    rig = rig_with(Wrong)
    for number in range(4):
        rig.submit(number, long_prompt(rig.backend, 40, 1 + 7 * number), max_tokens=40)
        rig.run()
    for number in range(4):
        expected = rig.expected(long_prompt(rig.backend, 40, 1 + 7 * number), 40)
        assert rig.text(number) == expected
    counters = rig.engine.counters
    assert 0 < counters.accepted_draft_tokens < counters.draft_tokens


def test_the_end_of_a_prompt_and_the_answer_are_read_and_nothing_else() -> None:
    rig = rig_with()
    prompt = [1 + i % 40 for i in range(3 * HEAD_STATES)]
    rig.submit(1, prompt, max_tokens=30)
    rig.run()
    assert rig.text(1) == rig.expected(prompt, 30)
    first = min(len(text) - 1 for text in head_of(rig).read)
    assert len(prompt) - HEAD_STATES < first < len(prompt) - HEAD_STATES // 2
    assert rig.finished(1).usage.accepted_draft_tokens > 0


def test_a_cached_prefix_is_not_read_again() -> None:
    rig = rig_with()
    prompt = long_prompt(rig.backend, 40)
    rig.submit(1, prompt, max_tokens=40)
    rig.run()
    said = rig.backend.greedy(prompt, 40)
    turn = [*prompt, *said, 9, 8, 7]
    rig.submit(2, turn, max_tokens=20)
    rig.run()
    assert rig.text(2) == rig.expected(turn, 20)
    usage = rig.finished(2).usage
    assert usage.cached_tokens > 30
    assert usage.accepted_draft_tokens == usage.draft_tokens > 0


def test_neighbours_and_preemption_change_no_text() -> None:
    backend = FakeBackend(kv_cells=160)
    rig = Rig(backend, parallel=4, head=Wrong(backend))
    random = np.random.default_rng(1)
    prompts = [[1 + n % 3] * 20 + random.integers(1, 50, 5).tolist() for n in range(12)]
    for number, prompt in enumerate(prompts):
        rig.submit(number, prompt, max_tokens=30)
    rig.run()
    for number, prompt in enumerate(prompts):
        assert rig.text(number) == rig.expected(prompt, 30)
    assert rig.engine.counters.preemptions > 0
    assert rig.engine.counters.accepted_draft_tokens > 0


def test_steps_without_the_head_are_caught_up_or_left_out() -> None:
    """A prediction drafts for a while; what is longer ago than the states that are kept is lost."""
    for length in (20, 4 * HEAD_STATES):
        backend = Endless(kv_cells=1024)
        rig = Rig(backend, head=FakeHead(backend))
        answer = rig.backend.greedy([5, 6, 7], length + 60)
        rig.submit(1, [5, 6, 7], max_tokens=length + 60, prediction=answer[:length])
        rig.run()
        assert rig.text(1) == "".join(f"<{token}>" for token in answer)
        usage = rig.finished(1).usage
        assert usage.accepted_draft_tokens > usage.accepted_prediction_tokens > 0


def test_guesses_that_do_not_fit_its_cells_are_not_made() -> None:
    rig = rig_with(head_cells=30)
    prompt = long_prompt(rig.backend, 60)
    rig.submit(1, prompt, max_tokens=60)
    rig.run()
    assert rig.text(1) == rig.expected(prompt, 60)
    assert rig.engine.has_drafter
    assert 0 < rig.finished(1).usage.draft_tokens < 30


def test_cells_and_ids_of_ended_sequences_are_free_again() -> None:
    rig = rig_with()
    for number in range(20):
        rig.submit(number, long_prompt(rig.backend, 20, 1 + number), max_tokens=20)
    rig.run()
    rig.submit(20, [1, 2, 3], max_tokens=3)
    rig.run()
    assert head_of(rig).cells_used < 10


@pytest.mark.parametrize("failure", [NoCellsLeft("none"), DecodeFailed("why")], ids=repr)
def test_a_head_that_fails_is_switched_off_and_the_log_says_so(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rig = rig_with()
    prompt = long_prompt(rig.backend, 60)
    rig.submit(1, prompt, max_tokens=60)
    rig.steps(4)
    assert rig.engine.counters.draft_tokens > 0
    head_of(rig).broken = failure
    with caplog.at_level(logging.WARNING):
        rig.run()
    assert not rig.engine.has_drafter
    assert f"the model's own head (MTP) failed and is switched off: {failure}" in caplog.text
    assert rig.text(1) == rig.expected(prompt, 60)


def test_a_step_that_is_computed_again_gets_its_guesses_again() -> None:
    rig = rig_with()
    prompt = long_prompt(rig.backend, 60)
    rig.submit(1, prompt, max_tokens=60)
    rig.steps(5)
    # The next step fails, and its sequence is computed alone.
    said = rig.backend.greedy(prompt, 60)
    decode = rig.backend.decode

    def failing(batch: Batch) -> None:
        rig.backend.decode = decode  # type: ignore[method-assign]
        raise NoCellsLeft

    rig.backend.decode = failing  # type: ignore[method-assign]
    rig.run()
    assert rig.backend.decode == decode
    assert rig.text(1) == "".join(f"<{token}>" for token in said)
    usage = rig.finished(1).usage
    assert usage.accepted_draft_tokens == usage.draft_tokens


@pytest.mark.parametrize("repeats", [False, True])
def test_a_seeded_answer_gets_guesses_where_logits_repeat(repeats: bool) -> None:
    def text(*, with_head: bool) -> tuple[str, int]:
        backend = FakeBackend(kv_cells=1024, repeats=repeats)
        rig = Rig(backend, head=FakeHead(backend) if with_head else None)
        sampling = Sampling(temperature=0.3, seed=5)
        rig.submit(1, [1, 2, 3], max_tokens=40, sampling=sampling)
        rig.run()
        return rig.text(1), rig.finished(1).usage.draft_tokens

    helped, drafted = text(with_head=True)
    assert helped == text(with_head=False)[0]
    assert (drafted > 0) == repeats


@pytest.mark.parametrize("length", [4, 9])
def test_guesses_keep_to_a_constraint(length: int) -> None:
    rig = rig_with()
    prompt = long_prompt(rig.backend, 20)
    rig.submit(1, prompt, 20, CountedConstraint(length))
    rig.run()
    assert rig.text(1) == rig.expected(prompt, length)
    assert rig.finished(1).reason == "stop"


def test_deep_prompts_are_computed_without_states() -> None:
    """A prompt's last layer then computes its last token alone."""
    rig = rig_with()
    prompt = [1 + i % 40 for i in range(3 * HEAD_STATES)]
    rig.submit(1, prompt, max_tokens=1)
    rig.run()
    assert 0 < len(rig.backend.texts) < HEAD_STATES + rig.backend.batch_size

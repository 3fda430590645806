"""A draft model saves time where its guesses are right, and changes no text."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.events import Delta
from server.core.sampling import Sampling
from server.engine.backend import DecodeFailed, NoCellsLeft
from server.engine.batch import Batch
from server.engine.draft_model import DraftModel
from tests.unit.engine.engine_rig import Rig
from tests.unit.engine.fake_backend import FakeBackend
from tests.unit.engine.test_engine_drafts import CountedConstraint


class Clock:
    """In the place of `time`: it goes on by what decodes cost."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("decoder", "draft_model", "drafter"):
        monkeypatch.setattr(f"server.engine.{module}.time", clock)
    return clock


class Timed(FakeBackend):
    """Takes ``step`` seconds for a decode, and ``row`` more for each further token."""

    def __init__(self, clock: Clock, step: float, row: float, **sizes: int) -> None:
        super().__init__(**sizes)  # type: ignore[arg-type]
        self._clock, self._step, self._row = clock, step, row
        self.broken: Exception | None = None

    def decode(self, batch: Batch) -> None:
        if self.broken is not None:
            raise self.broken
        self._clock.now += self._step + self._row * (batch.size - 1)
        super().decode(batch)


class Wrong(Timed):
    """Guesses right once in a while."""

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = super().row_after(tokens)
        if len(tokens) % 5:
            row[int(row.argmax())] = -10
        return row


def target(clock: Clock, **sizes: int) -> Timed:
    return Timed(clock, 1.0, 0.2, **{"kv_cells": 1024, "vocabulary_size": 50} | sizes)


def drafter(clock: Clock, kind: type[Timed] = Timed, **sizes: int) -> Timed:
    return kind(clock, 0.1, 0.01, **{"kv_cells": 1024, "vocabulary_size": 50} | sizes)


def long_prompt(backend: FakeBackend, tokens: int) -> list[int]:
    """A prompt whose answer has at least so many tokens."""
    return next([i, 7] for i in range(1, 50) if len(backend.greedy([i, 7], tokens)) == tokens)


def seconds(rig: Rig, clock: Clock, prompt: list[int], tokens: int) -> float:
    """How long an answer takes, which must be the right one."""
    started = clock.now
    rig.submit(1, prompt, max_tokens=tokens)
    rig.run()
    assert rig.text(1) == rig.expected(prompt, tokens)
    return clock.now - started


def test_right_guesses_save_time_and_change_no_text(clock: Clock) -> None:
    plain = Rig(target(clock))
    prompt = long_prompt(plain.backend, 60)
    alone = seconds(plain, clock, prompt, 60)
    helped = Rig(target(clock), draft_backend=drafter(clock))
    assert seconds(helped, clock, prompt, 60) < 0.6 * alone
    usage = helped.finished(1).usage
    assert usage.accepted_draft_tokens > 40
    assert helped.engine.counters.accepted_draft_tokens == usage.accepted_draft_tokens
    assert (usage.accepted_prediction_tokens, usage.rejected_prediction_tokens) == (0, 0)


def test_a_model_that_guesses_wrong_or_slowly_is_soon_left_alone(clock: Clock) -> None:
    plain = Rig(target(clock))
    prompt = long_prompt(plain.backend, 60)
    alone = seconds(plain, clock, prompt, 60)
    wrong = Rig(target(clock), draft_backend=drafter(clock, Wrong))
    assert seconds(wrong, clock, prompt, 60) < 1.15 * alone
    # The next answers know, until it is forgotten.
    drafted = wrong.engine.counters.draft_tokens
    for _ in range(5):
        wrong.events.clear()
        assert seconds(wrong, clock, prompt, 60) < 1.05 * alone
    assert wrong.engine.counters.draft_tokens - drafted < drafted
    slow = Rig(target(clock), draft_backend=Timed(clock, 0.9, 0.1, kv_cells=1024))
    assert seconds(slow, clock, prompt, 60) < 1.15 * alone


def test_a_long_prompt_is_read_once_drafts_would_have_paid_for_it(clock: Clock) -> None:
    def read(tokens: int) -> int:
        backend, small = target(clock), drafter(clock)
        rig = Rig(backend, draft_backend=small)
        rig.submit(0, [1, 2], max_tokens=12)
        rig.submit(9, [*range(1, 41)], max_tokens=40)  # what reading costs is known afterwards
        rig.run()
        before = small.decoded_tokens
        rig.submit(1, [*range(3, 50), *range(3, 50), *range(3, 50)], max_tokens=tokens)
        rig.run()
        assert rig.text(1) == rig.expected([*range(3, 50)] * 3, tokens)
        return small.decoded_tokens - before

    assert read(2) == 0
    assert read(40) > 140


def test_what_the_draft_model_has_read_serves_the_next_turn(clock: Clock) -> None:
    backend, small = target(clock), drafter(clock)
    rig = Rig(backend, draft_backend=small)
    prompt = long_prompt(backend, 40)
    first = backend.greedy(prompt, 40)
    seconds(rig, clock, prompt, 40)
    before = small.decoded_tokens
    rig.events.clear()
    turn = [*prompt, *first, 9, 8, 7]
    rig.submit(1, turn, max_tokens=20)
    rig.run()
    assert rig.text(1) == rig.expected(turn, 20)
    usage = rig.finished(1).usage
    assert usage.accepted_draft_tokens > 0
    # Beside the guesses, only the few tokens of the new turn and of the answer were computed.
    assert small.decoded_tokens - before < usage.draft_tokens + usage.completion_tokens + 10


def test_followed_cells_are_always_those_of_the_sequences(clock: Clock) -> None:
    backend = target(clock, kv_cells=300)
    small = drafter(clock, Wrong, kv_cells=120, sequence_ids=6, batch_size=32)
    rig = Rig(backend, parallel=4, draft_backend=small)
    random = np.random.default_rng(1)
    for number in range(12):
        shared = [1 + number % 3] * 20
        rig.submit(number, [*shared, *random.integers(1, 50, 5).tolist()], max_tokens=30)
    for _ in range(400):
        if rig.engine._answers or rig.engine._inbox.unread:
            rig.steps(1)
            check_followed(rig, small)
    for number in range(12):
        assert rig.finished(number)


def check_followed(rig: Rig, small: FakeBackend) -> None:
    model = rig.engine._drafting.drafter
    assert isinstance(model, DraftModel)
    model._cache.check_integrity()
    for followed in model._followed.values():
        keys = followed.state.spans.keys(0, followed.computed).tolist()
        assert small.tokens_of(followed.sequence_id) == keys + followed.guesses


@pytest.mark.parametrize("failure", [NoCellsLeft("none"), DecodeFailed("why")], ids=repr)
def test_a_model_that_fails_is_switched_off_and_the_log_says_so(
    clock: Clock, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    small = drafter(clock)
    rig = Rig(target(clock), draft_backend=small)
    prompt = long_prompt(rig.backend, 60)
    rig.submit(1, prompt, max_tokens=60)
    rig.steps(4)
    assert rig.engine.counters.draft_tokens > 0
    small.broken = failure
    with caplog.at_level(logging.WARNING):
        rig.run()
    assert not rig.engine.has_drafter
    assert f"the draft model failed and is switched off: {failure}" in caplog.text
    assert rig.text(1) == rig.expected(prompt, 60)


@pytest.mark.parametrize("repeats", [False, True])
def test_a_seeded_answer_gets_guesses_where_logits_repeat(clock: Clock, repeats: bool) -> None:
    def text(seed: int | None, small: Timed | None) -> tuple[str, int]:
        rig = Rig(target(clock, repeats=repeats), draft_backend=small)
        sampling = Sampling(temperature=1, seed=seed)
        rig.submit(1, [1, 2, 3], max_tokens=40, sampling=sampling)
        rig.run()
        return rig.text(1), rig.finished(1).usage.draft_tokens

    plain, _ = text(5, None)
    helped, drafted = text(5, drafter(clock))
    assert helped == plain
    assert (drafted > 0) == repeats
    assert text(None, drafter(clock))[1] > 0


class Certain(Timed):
    """The next token follows the last one in a fixed distribution over few tokens."""

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = np.full(self.vocabulary_size, -50.0, dtype=np.float32)
        row[5:9] = np.log([0.55, 0.25, 0.15, 0.05])
        return row


def test_drafts_leave_the_distribution_as_it_is(clock: Clock) -> None:
    small = Certain(clock, 0.01, 0.001, kv_cells=4096)
    rig = Rig(Certain(clock, 1.0, 0.02, kv_cells=4096), draft_backend=small)
    rig.submit(1, [1, 2, 3], max_tokens=3000, sampling=Sampling(temperature=1), logprobs=0)
    rig.run(limit=4000)
    tokens = [score.id for e in rig.events if isinstance(e, Delta) for score in e.logprobs]
    assert len(tokens) == 3000
    assert rig.finished(1).usage.accepted_draft_tokens > 300
    shares = np.bincount(tokens, minlength=9)[5:9] / len(tokens)
    # Four standard deviations of the share of the most probable token.
    assert np.abs(shares - [0.55, 0.25, 0.15, 0.05]).max() < 4 * (0.25 / 3000) ** 0.5
    scored = {
        score.id: score.logprob for e in rig.events if isinstance(e, Delta) for score in e.logprobs
    }
    assert scored[5] == pytest.approx(np.log(0.55), abs=1e-4)


@pytest.mark.parametrize("length", [4, 9])
def test_guesses_keep_to_a_constraint(clock: Clock, length: int) -> None:
    rig = Rig(target(clock), draft_backend=drafter(clock))
    prompt = long_prompt(rig.backend, 20)
    rig.submit(1, prompt, 20, CountedConstraint(length))
    rig.run()
    assert rig.text(1) == rig.expected(prompt, length)
    assert rig.finished(1).reason == "stop"


def test_tokens_that_only_the_larger_model_has_are_never_given_to_the_smaller(
    clock: Clock,
) -> None:
    rig = Rig(target(clock), draft_backend=drafter(clock, vocabulary_size=30))
    rig.submit(1, [1, 2, 49], max_tokens=20)
    rig.submit(2, [1, 2, 3], max_tokens=20)
    rig.run()
    assert rig.text(1) == rig.expected([1, 2, 49], 20)
    assert rig.text(2) == rig.expected([1, 2, 3], 20)


def test_recurrent_states_cannot_verify_guesses(clock: Clock) -> None:
    backend = Timed(clock, 1.0, 0.2, partial_removal=False)
    assert not Rig(backend, draft_backend=drafter(clock)).engine.has_drafter

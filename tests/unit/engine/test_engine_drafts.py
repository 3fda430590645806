"""Drafts save steps and change no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.sampling import Sampling
from server.engine.adapters import Adapters
from server.engine.batch import Batch
from tests.unit.engine.engine_rig import Rig
from tests.unit.engine.fake_backend import FakeBackend


@dataclass
class CountedConstraint:
    """Allows any tokens, and is complete after ``left`` of them."""

    left: int

    def allowed(self) -> NDArray[np.uint32]:
        return np.full(2, 0xFFFFFFFF if self.left else 0, dtype=np.uint32)

    def accept(self, token: int) -> None:
        assert self.left
        self.left -= 1

    def forced_tokens(self) -> list[int]:
        return []

    def valid_prefix(self, tokens: list[int]) -> int:
        return min(self.left, len(tokens))

    @property
    def is_complete(self) -> bool:
        return self.left == 0


def test_a_good_prediction_saves_steps_and_changes_no_text() -> None:
    plain = Rig(FakeBackend())
    plain.submit(1, [5, 6, 7], max_tokens=12)
    plain.run()
    answer = plain.backend.greedy([5, 6, 7], 12)
    helped = Rig(FakeBackend())
    helped.submit(1, [5, 6, 7], max_tokens=12, prediction=answer)
    helped.run()
    assert helped.text(1) == plain.text(1)
    usage = helped.finished(1).usage
    assert usage.accepted_prediction_tokens > 0
    assert usage.rejected_prediction_tokens == 0
    # Each step gives a token of its own besides the guessed ones.
    steps = len(helped.backend.batches)
    assert usage.completion_tokens == steps + usage.accepted_prediction_tokens


def test_a_wrong_prediction_changes_no_text_and_is_counted_as_rejected() -> None:
    rig = Rig(FakeBackend())
    right = rig.backend.greedy([5, 6, 7], 2)
    rig.submit(1, [5, 6, 7], max_tokens=12, prediction=[*right, *[1] * 10])
    rig.run()
    assert rig.text(1) == rig.expected([5, 6, 7], 12)
    usage = rig.finished(1).usage
    # The first token is sampled before there is anything to compare.
    assert usage.accepted_prediction_tokens == len(right) - 1
    assert usage.rejected_prediction_tokens == usage.draft_tokens - len(right) + 1 > 0


class Repeating(FakeBackend):
    """A model that repeats the text that it was given."""

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = np.zeros(self.vocabulary_size, dtype=np.float32)
        row[tokens[-8]] = 10
        return row


@pytest.mark.parametrize("lookup", [True, False])
def test_looking_up_the_prompt_saves_steps_and_is_no_prediction(lookup: bool) -> None:
    rig = Rig(Repeating(), prompt_lookup=lookup)
    rig.submit(1, [*range(1, 9)] * 2, max_tokens=24)
    rig.run()
    assert rig.text(1) == rig.expected([*range(1, 9)], 24)
    usage = rig.finished(1).usage
    assert (usage.accepted_prediction_tokens, usage.rejected_prediction_tokens) == (0, 0)
    assert (usage.accepted_draft_tokens > 0) == lookup
    assert len(rig.backend.batches) == 24 - usage.accepted_draft_tokens


@pytest.mark.parametrize("repeats", [True, False])
def test_a_seeded_answer_is_looked_up_where_logits_repeat(repeats: bool) -> None:
    rig = Rig(Repeating(repeats=repeats), prompt_lookup=True)
    seeded = Sampling(temperature=0.1, seed=5)
    rig.submit(1, [*range(1, 9)] * 2, max_tokens=24, sampling=seeded)
    rig.run()
    assert rig.text(1) == rig.expected([*range(1, 9)], 24)
    assert (rig.finished(1).usage.accepted_draft_tokens > 0) == repeats


class Declining(Repeating):
    """Leaves something to other code with adapters, from the first decode with them on."""

    def __init__(self) -> None:
        super().__init__(repeats=True)
        self._declining: set[int] = set()

    def repeats(self, adapters: Adapters | None) -> bool:
        return id(adapters) not in self._declining

    def decode(self, batch: Batch) -> None:
        super().decode(batch)
        if batch.adapters is not None:
            self._declining.add(id(batch.adapters))


class Low(NamedTuple):
    """An adapter of a low rank."""

    identity: str


def test_adapters_end_drafts_for_seeded_answers_with_them_alone() -> None:
    rig = Rig(Declining(), prompt_lookup=True)
    prompt, seeded = [*range(1, 9)] * 2, Sampling(temperature=0.1, seed=5)
    adapters = Low("low")
    rig.submit(1, prompt, max_tokens=24, sampling=seeded, adapters=adapters)
    rig.submit(2, prompt, max_tokens=24, adapters=adapters)
    rig.submit(3, prompt, max_tokens=24, sampling=seeded)
    rig.run()
    assert rig.finished(1).usage.draft_tokens == 0
    assert rig.finished(2).usage.accepted_draft_tokens > 0
    assert rig.finished(3).usage.accepted_draft_tokens > 0


def test_nothing_is_looked_up_beside_many_others() -> None:
    rig = Rig(Repeating(kv_cells=512), parallel=12, prompt_lookup=True)
    for i in range(12):
        rig.submit(i, [*range(i, i + 8)] * 2, max_tokens=16)
    rig.run()
    assert [rig.finished(i).usage.draft_tokens for i in range(12)] == [0] * 12


@pytest.mark.parametrize("length", range(2, 8))
def test_a_draft_that_completes_a_constraint_arrives_whole(length: int) -> None:
    rig = Rig(FakeBackend())
    prompt = [1, 2, 3]
    guess = rig.backend.greedy(prompt, 20)
    assert len(guess) == 20
    rig.submit(1, prompt, 20, CountedConstraint(length), prediction=guess)
    rig.run()
    assert rig.text(1) == rig.expected(prompt, length)
    assert rig.finished(1).reason == "stop"
    assert rig.finished(1).usage.completion_tokens == length

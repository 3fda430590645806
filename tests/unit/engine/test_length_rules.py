"""The least tokens of an answer, tokens that end it, and the most tokens of its reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.sampling import Sampling
from server.engine.sampling.length_rules import LengthRules, ReasoningLimit
from tests.unit.engine.engine_rig import Rig
from tests.unit.engine.fake_backend import END, FakeBackend

OPEN, CLOSE, BREAK = 40, 41, 42
LIMIT = ReasoningLimit(
    tokens=5,
    openings=(b"<40>",),
    ends=(b"<41>",),
    opened=False,
    recurs=False,
    closing=(CLOSE, BREAK),
    closing_again=(CLOSE, BREAK, BREAK),
    skipping=(),
)


class Scripted(FakeBackend):
    """A model that follows a script as far as it may, by its place in the answer."""

    def __init__(self, script: Sequence[int]) -> None:
        super().__init__()
        self.script = script

    def row_after(self, tokens: list[int]) -> NDArray[np.float32]:
        row = np.zeros(self.vocabulary_size, dtype=np.float32)
        row[self.script[min(len(tokens) - 1, len(self.script) - 1)]] = 10
        row[9] = 1  # what it writes where it may not do as it likes
        return row


def answer(script: Sequence[int], **task: object) -> tuple[list[int], int]:
    """The tokens of an answer after one prompt token, and how many were counted."""
    rig = Rig(Scripted(script))
    rig.submit(1, [1], **{"max_tokens": 12, **task})  # type: ignore[arg-type]
    rig.run()
    text = rig.text(1)
    tokens = [int(piece) for piece in text.strip("<>").split("><") if piece]
    return tokens, rig.finished(1).usage.completion_tokens


def test_an_answer_has_its_least_tokens_before_it_ends() -> None:
    script = [7, END, END, END, END]
    assert answer(script) == ([7], 2)
    assert answer(script, min_tokens=4, end_tokens=frozenset({END})) == ([7, 9, 9, 9], 5)


def test_a_stop_token_ends_an_answer_and_does_not_show() -> None:
    assert answer([7, 8, 5, 7], stop_tokens=frozenset({5})) == ([7, 8], 3)


def test_stop_tokens_wait_for_the_least_tokens_too() -> None:
    task = {"stop_tokens": frozenset({5}), "end_tokens": frozenset({END, 5}), "min_tokens": 3}
    assert answer([7, 5, 7, 5], **task) == ([7, 9, 7], 4)


def test_an_answer_that_may_only_end_ends_before_its_least_tokens() -> None:
    rules = LengthRules(
        None,
        vocabulary_size=2,
        piece=lambda _: b"",
        min_tokens=3,
        ends=frozenset({0, 1}),
    )
    allowed = rules.allowed()
    assert allowed is not None
    assert allowed[0] & 3 == 3


THINKING = [OPEN, 7, 7, 7, 7, 7, 7, 7, 8, 8, END]


@pytest.mark.parametrize("logprobs", [None, 0])
def test_reasoning_is_closed_when_its_budget_is_used_up(logprobs: int | None) -> None:
    """Five tokens: the opening, two thoughts and the two that close it; then the answer goes on."""
    tokens, counted = answer(THINKING, reasoning_limit=LIMIT, logprobs=logprobs)
    assert tokens == [OPEN, 7, 7, CLOSE, BREAK, 7, 7, 7, 8, 8]
    assert counted == 11


def test_reasoning_that_ends_by_itself_is_left_alone() -> None:
    script = [OPEN, 7, CLOSE, 7, 7, 7, 7, 7, END]
    assert answer(script, reasoning_limit=LIMIT)[0] == script[:-1]


def test_an_answer_that_does_not_begin_with_reasoning_is_left_alone() -> None:
    script = [7, OPEN, 7, 7, 7, 7, 7, 7, END]
    assert answer(script, reasoning_limit=LIMIT)[0] == script[:-1]


def test_reasoning_that_the_prompt_opened_counts_from_the_first_token() -> None:
    limit = replace(LIMIT, opened=True)
    assert answer([7] * 8 + [END], reasoning_limit=limit)[0][:6] == [7, 7, 7, CLOSE, BREAK, 7]


@pytest.mark.parametrize("opened", [True, False])
def test_a_budget_of_nothing_leaves_no_thoughts(opened: bool) -> None:
    skipping = (CLOSE, BREAK) if opened else ()
    limit = replace(LIMIT, tokens=0, opened=opened, skipping=skipping)
    tokens, _ = answer(THINKING, reasoning_limit=limit)
    begun = [CLOSE, BREAK] if opened else [OPEN, CLOSE, BREAK]
    assert tokens[: len(begun)] == begun
    assert OPEN not in tokens[1:]


def test_reasoning_that_comes_back_is_closed_for_good() -> None:
    limit = replace(LIMIT, recurs=True)
    script = [OPEN, 7, 7, 7, 7, OPEN, 7, 7, 7, 7, 8, END]
    tokens, _ = answer(script, reasoning_limit=limit)
    assert tokens == [OPEN, 7, 7, CLOSE, BREAK, OPEN, CLOSE, BREAK, BREAK, 7, 8]


def test_each_of_several_answers_has_a_budget_of_its_own() -> None:
    rig = Rig(Scripted(THINKING))
    rig.submit(1, [1], max_tokens=12, n=2, reasoning_limit=LIMIT)
    rig.run()
    texts = {rig.text(1, index) for index in range(2)}
    assert texts == {"<40><7><7><41><42><7><7><7><8><8>"}


def test_drafts_do_not_go_past_a_budget() -> None:
    rig = Rig(Scripted([7] * 30), prompt_lookup=True)
    limit = replace(LIMIT, tokens=8, opened=True)
    rig.submit(1, [7] * 20, max_tokens=20, reasoning_limit=limit)
    rig.run()
    tokens = rig.text(1).strip("<>").split("><")
    assert tokens[:8] == ["7"] * 6 + ["41", "42"]
    assert tokens[8:] == ["7"] * 12
    assert rig.finished(1).usage.draft_tokens > 0


class HalfCharacters(Scripted):
    """Token 7 is the first byte of a character that token 8 completes."""

    def piece(self, token: int) -> bytes:
        return {7: b"\xc3", 8: b"\xa4"}.get(token, super().piece(token))


def test_a_character_that_the_budget_cuts_is_dropped() -> None:
    rig = Rig(HalfCharacters([7, 8, 7, 8, 7, 8, END]))
    rig.submit(1, [1], max_tokens=10, reasoning_limit=replace(LIMIT, opened=True))
    rig.run()
    assert rig.text(1).startswith("ä<41><42>")


def test_a_seeded_answer_with_a_budget_repeats() -> None:
    def once() -> str:
        rig = Rig(FakeBackend())
        sampling = Sampling(temperature=1, seed=5)
        rig.submit(1, [1, 2], reasoning_limit=replace(LIMIT, opened=True), sampling=sampling)
        rig.run()
        return rig.text(1)

    assert once() == once()

"""Drafts change the speed of an answer and nothing else about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.core.pieces import ImagePiece
from server.core.sampling import Sampling
from server.engine.draft_policy import DraftPolicy
from server.engine.sampling.sampler import NoTokenLeft, Sampler
from server.engine.spans import Spans, TokenSpan
from server.engine.speculate import Draft, NgramIndex, PromptLookup, verified

SIZE = 4
text_lists = st.lists(st.integers(0, SIZE - 1), max_size=60)


def text(tokens: list[int]) -> Spans:
    return Spans([TokenSpan(tokens)])


def naive_find(tokens: list[int], recent: list[int]) -> int | None:
    for size in (6, 3):
        for end in range(len(tokens) - 1, size - 1, -1):
            if len(recent) >= size and tokens[end - size : end] == recent[-size:]:
                return end
    return None


@given(text_lists, text_lists)
def test_the_index_finds_what_a_search_finds(tokens: list[int], recent: list[int]) -> None:
    end = np.array(recent, dtype=np.int32)
    assert NgramIndex(text(tokens)).find(end) == naive_find(tokens, recent)


@given(text_lists, text_lists, st.integers(0, 9))
def test_a_draft_continues_the_latest_repetition(
    prompt: list[int], answer: list[int], most: int
) -> None:
    written = text(prompt)
    lookup = PromptLookup(written)
    for token in answer:
        written.append(token)
    whole = prompt + answer
    place = naive_find(whole, whole)
    draft = lookup.draft(most)
    assert not draft.predicted
    if place is None:
        assert draft.tokens == []
    else:
        assert len(draft.tokens) == most
        following = whole[place:][:most]
        assert draft.tokens[: len(following)] == following


def test_a_period_is_continued_beyond_the_text() -> None:
    assert PromptLookup(text([7, 8, 9] * 3)).draft(7).tokens == [7, 8, 9, 7, 8, 9, 7]


def test_a_prediction_is_drafted_from_its_beginning() -> None:
    written = text([1, 2, 3])
    lookup = PromptLookup(written, prediction=[10, 11, 12, 13])
    assert lookup.draft(3) == Draft([10, 11, 12], predicted=True)
    written.append(10)
    assert lookup.draft(8) == Draft([11, 12, 13], predicted=True)


def test_a_prediction_that_was_left_is_taken_up_where_the_answer_meets_it_again() -> None:
    prediction = list(range(100, 130))
    written = text([])
    lookup = PromptLookup(written, prediction)
    written.append(100)
    written.append(55)
    assert lookup.draft(4).tokens == []
    for token in (110, 111, 112):
        written.append(token)
    assert lookup.draft(3) == Draft([113, 114, 115], predicted=True)


def test_tokens_of_the_prompt_do_not_bring_a_prediction_back() -> None:
    written = text([110, 111])
    lookup = PromptLookup(written, prediction=list(range(100, 130)))
    written.append(112)
    assert not lookup.draft(3).predicted


def test_after_the_prediction_the_text_is_looked_up() -> None:
    written = text([1, 2, 3, 4, 1, 2, 3])
    lookup = PromptLookup(written, prediction=[9])
    written.append(9)
    for token in (1, 2, 3):
        written.append(token)
    assert lookup.draft(1) == Draft([9], predicted=False)


def test_without_the_prompt_only_what_the_answer_repeats_is_looked_up() -> None:
    written = text([7, 8, 9] * 3)
    lookup = PromptLookup(written, prompt_too=False)
    assert lookup.draft(3).tokens == []
    for token in (7, 8, 9, 5):
        written.append(token)
    assert lookup.draft(3).tokens == []
    for token in (7, 8, 9):
        written.append(token)
    assert lookup.draft(2).tokens == [5, 7]


def model(history: list[int]) -> NDArray[np.float32]:
    """Logits that depend on the whole history."""
    seed = hash(tuple(history)) & 0xFFFF
    logits = np.random.default_rng(seed).normal(0, 2, SIZE)
    return np.asarray(logits, dtype=np.float32)


def plain(sampler: Sampler, prompt: list[int], count: int) -> list[int]:
    answer: list[int] = []
    while len(answer) < count:
        answer.append(sampler.sample(model(prompt + answer)))
        sampler.accept(answer[-1])
    return answer


class Verified(NamedTuple):
    tokens: list[int]
    accepted: int


def verify(
    rows: NDArray[np.float32],
    draft: list[int],
    sampler: Sampler,
    rules: OnlyTwice | None = None,
    *,
    is_last: Callable[[int], bool] = lambda _: False,
) -> Verified:
    """The tokens of a step, and how many of them the draft had guessed."""
    tokens, accepted = [], 0
    for token, guessed in verified(rows, draft, sampler, rules):
        tokens.append(token)
        accepted += guessed
        if is_last(token):
            break
    return Verified(tokens, accepted)


def drafted(sampler: Sampler, prompt: list[int], count: int, draft_length: int) -> list[int]:
    answer: list[int] = []
    written = text(prompt)
    lookup = PromptLookup(written)
    while len(answer) < count:
        guesses = lookup.draft(min(draft_length, count - len(answer) - 1)).tokens
        context = prompt + answer
        rows = np.stack([model(context + guesses[:i]) for i in range(len(guesses) + 1)])
        result = verify(rows, guesses, sampler)
        assert 1 <= len(result.tokens) <= len(guesses) + 1
        assert result.tokens[: result.accepted] == guesses[: result.accepted]
        answer += result.tokens
        for token in result.tokens:
            written.append(token)
    return answer


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"top_k": 3, "repeat_penalty": 1.4, "frequency_penalty": 0.5},
        {"mirostat": 2, "xtc_probability": 0.5},
    ],
)
@given(prompt=st.lists(st.integers(0, SIZE - 1), max_size=20), draft_length=st.integers(0, 8))
def test_drafts_leave_a_seeded_answer_as_it_is(
    parameters: dict[str, Any], prompt: list[int], draft_length: int
) -> None:
    def fresh() -> Sampler:
        return Sampler(Sampling(seed=3, **parameters), vocabulary_size=SIZE, history=text(prompt))

    assert drafted(fresh(), prompt, 25, draft_length) == plain(fresh(), prompt, 25)


def row(best: int) -> NDArray[np.float32]:
    return np.asarray(np.eye(SIZE, dtype=np.float32)[best])


def greedy() -> Sampler:
    return Sampler(Sampling(temperature=0), vocabulary_size=SIZE, history=text([]))


def test_no_draft_has_an_image_in_it() -> None:
    image = ImagePiece(cells=4, positions=4, digest=b"image").keys
    written = text([1, 2, 3, 0, *image, 1, 2, 3])
    assert PromptLookup(written).draft(6).tokens == [0]


def test_the_first_wrong_guess_is_replaced_and_the_rest_dropped() -> None:
    rows = np.stack([row(1), row(2), row(3), row(0)])
    assert verify(rows, [1, 0, 3], greedy()) == ([1, 2], 1)
    assert verify(rows, [1, 2, 3], greedy()) == ([1, 2, 3, 0], 3)
    assert verify(rows[:1], [], greedy()) == ([1], 0)


def test_nothing_is_sampled_after_the_last_token() -> None:
    rows = np.stack([row(1), row(2), row(3)])
    assert verify(rows, [1, 2], greedy(), is_last=lambda t: t == 2) == ([1, 2], 2)


class OnlyTwice:
    """Allows token 1 twice and then nothing."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def allowed(self) -> NDArray[np.uint32]:
        return np.array([0b10 if len(self.accepted) < 2 else 0], dtype=np.uint32)

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def forced_tokens(self) -> list[int]:
        return []


class ForcedAfterFirst(OnlyTwice):
    """Forces 2, 3 behind the first token, although others spell the same and are allowed."""

    def allowed(self) -> NDArray[np.uint32]:
        return np.array([0b1111], dtype=np.uint32)

    def forced_tokens(self) -> list[int]:
        return [2, 3][len(self.accepted) - 1 :]


@pytest.mark.parametrize(
    ("draft", "result"),
    [
        ([1, 2, 3], ([1, 2, 3, 0], 3)),
        ([1, 2, 0], ([1, 2], 2)),
        ([1, 2], ([1, 2], 2)),
        ([1, 0, 3], ([1], 1)),
    ],
)
def test_forced_tokens_are_accepted_where_the_draft_has_them_and_never_sampled(
    draft: list[int], result: tuple[list[int], int]
) -> None:
    rows = np.stack([row(1), row(0), row(0), row(0)])[: len(draft) + 1]
    steps = verified(rows, draft, greedy(), ForcedAfterFirst(), takes_forced=True)
    tokens, guessed = zip(*steps, strict=True)
    assert ([*tokens], sum(guessed)) == result


def test_rules_bind_every_row_and_tokens_before_a_dead_end_are_kept() -> None:
    rules = OnlyTwice()
    rows = np.stack([row(0)] * 4)
    assert verify(rows, [1, 1, 1], greedy(), rules) == ([1, 1], 2)
    assert rules.accepted == [1, 1]
    with pytest.raises(NoTokenLeft):
        verify(rows, [1, 1, 1], greedy(), rules)


def test_a_lone_sequence_drafts_and_a_crowd_does_not() -> None:
    lengths = [DraftPolicy().draft_length(active, 0.25) for active in (1, 2, 4, 8, 16, 256)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] >= 3
    assert lengths[-1] == 0


def test_cheap_rows_make_longer_drafts() -> None:
    assert DraftPolicy().draft_length(1, 0.02) > DraftPolicy().draft_length(1, 0.5)
    assert DraftPolicy().draft_length(1, 1.0) == 0


def test_success_lengthens_drafts_up_to_a_bound() -> None:
    policy = DraftPolicy()
    for _ in range(200):
        policy.record(drafted=8, accepted=8)
    assert policy.draft_length(1, 0.25) == DraftPolicy.LONGEST
    assert policy.acceptance <= 1


def steps_until_drafting(policy: DraftPolicy) -> int:
    steps = 0
    while policy.draft_length(1, 0.25) == 0:
        steps += 1
        assert steps < 2000
    return steps


def test_failure_switches_drafting_off_for_longer_and_longer() -> None:
    policy = DraftPolicy()
    pauses = []
    for _ in range(8):
        while policy.draft_length(1, 0.25) > 0:
            policy.record(drafted=4, accepted=0)
        pauses.append(steps_until_drafting(policy))
    assert pauses[:3] == [32, 64, 128]
    assert pauses[-1] == pauses[-2] == 512
    policy.record(drafted=4, accepted=4)
    while policy.draft_length(1, 0.25) > 0:
        policy.record(drafted=4, accepted=0)
    assert steps_until_drafting(policy) == 32


def test_load_alone_causes_no_pause() -> None:
    policy = DraftPolicy()
    assert all(policy.draft_length(64, 0.25) == 0 for _ in range(100))
    assert policy.draft_length(1, 0.25) > 0


def test_drafts_that_proved_right_go_on_where_new_ones_would_not_begin() -> None:
    proven, fresh = DraftPolicy(), DraftPolicy()
    for _ in range(3):
        proven.record(15, 15)
    assert fresh.draft_length(1, 0.8) == 0
    assert proven.draft_length(1, 0.8) > 1
    assert proven.draft_length(64, 0.8) == 0, "beside 64 others a draft hardly gains"


def test_a_fork_knows_the_prompt_and_goes_its_own_way() -> None:
    written = text([1, 2, 3, 4, 5, 6])
    lookup = PromptLookup(written, prediction=[7, 8])
    forked = written.fork()
    twin = lookup.fork(forked)
    assert twin.draft(2).tokens == [7, 8]
    for token in (1, 2, 3):
        forked.append(token)
    assert twin.draft(3).tokens == [4, 5, 6]
    assert lookup.draft(2).tokens == [7, 8]

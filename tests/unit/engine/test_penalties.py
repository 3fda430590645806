"""Penalties against formulas written down naively over the whole history."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.core.pieces import ImagePiece
from server.core.sampling import Sampling
from server.engine.sampling.penalties import Dry, Penalties, TokenCounts
from server.engine.spans import Spans, TokenSpan

SIZE = 6
tokens = st.lists(st.integers(0, SIZE - 1), max_size=40)
windows = st.sampled_from([None, -1, 0, 1, 3, 8, 100])
LOGITS = np.array([3.0, -2.0, 0.5, -0.5, 0.0, -np.inf], dtype=np.float32)


def last(history: list[int], window: int) -> list[int]:
    return history if window < 0 else history[len(history) - min(window, len(history)) :]


@given(tokens, st.integers(-1, 10))
def test_counts_are_those_of_the_window(history: list[int], window: int) -> None:
    counts = TokenCounts(window)
    for token in history:
        counts.add(token)
    found = dict(zip(counts.ids.tolist(), counts.counts.tolist(), strict=True))
    assert found == Counter(last(history, window))


def test_counts_grow_beyond_their_first_room() -> None:
    counts = TokenCounts(-1, range(500))
    counts.add(3)
    assert counts.ids.tolist() == list(range(500))
    assert counts.counts[3] == 2


@given(
    tokens,
    tokens,
    windows,
    st.sampled_from([1.0, 1.3, 0.8]),
    st.sampled_from([0.0, 0.7, -1.5]),
    st.sampled_from([0.0, 0.4, -2.0]),
)
def test_penalties_match_their_formulas(
    prompt: list[int],
    answer: list[int],
    window: int | None,
    repeat: float,
    frequency: float,
    presence: float,
) -> None:
    sampling = Sampling(
        repeat_penalty=repeat,
        frequency_penalty=frequency,
        presence_penalty=presence,
        repeat_last_n=window,
    )
    subject = Penalties(sampling, Spans([TokenSpan(prompt)]))
    for token in answer:
        subject.accept(token)
    logits = LOGITS.copy()
    subject.apply(logits)

    seen = last(prompt + answer, 64 if window is None else window)
    written = Counter(last(answer, -1 if window is None else window))
    expected = LOGITS.astype(np.float64)
    for token in set(seen):
        expected[token] *= repeat if expected[token] <= 0 else 1 / repeat
    for token, count in written.items():
        expected[token] -= count * frequency + presence
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert subject.active or np.array_equal(logits, LOGITS)
    untouched = np.setdiff1d(np.arange(LOGITS.size), subject.ids)
    assert np.array_equal(logits[untouched], LOGITS[untouched])


def naive_repetitions(
    history: list[int], allowed_length: int, breakers: set[int]
) -> dict[int, int]:
    """For each token: the longest end of ``history`` that it followed before."""
    longest: dict[int, int] = {}
    for place in range(1, len(history)):
        length = 0
        while (
            length < place
            and history[place - 1 - length] == history[len(history) - 1 - length]
            and history[len(history) - 1 - length] not in breakers
        ):
            length += 1
        token = history[place]
        if length >= allowed_length and token not in breakers:
            longest[token] = max(length, longest.get(token, 0))
    return longest


def dry_penalties(subject: Dry) -> NDArray[np.float32]:
    losses = np.zeros(SIZE, dtype=np.float32)
    ids, amounts = subject.penalties()
    losses[ids] = amounts
    return losses


@given(
    st.lists(st.integers(0, 3), max_size=40),
    st.integers(1, 4),
    st.sampled_from([-1, 0, 1, 5, 100]),
    st.sampled_from([set(), {3}]),
)
def test_dry_matches_a_naive_search(
    history: list[int], allowed_length: int, window: int, breakers: set[int]
) -> None:
    sampling = Sampling(
        dry_multiplier=0.8,
        dry_base=1.5,
        dry_allowed_length=allowed_length,
        dry_penalty_last_n=window,
    )
    text = Spans([TokenSpan(history[:7])])
    subject = Dry(sampling, text, breakers)
    for token in history[7:]:
        text.append(token)
    expected = np.zeros(SIZE)
    repetitions = naive_repetitions(last(history, window), allowed_length, breakers)
    for token, length in repetitions.items() if subject.active else ():
        expected[token] = 0.8 * 1.5 ** (length - allowed_length)
    np.testing.assert_allclose(dry_penalties(subject), expected, rtol=1e-5)


def test_images_are_no_tokens_to_penalise() -> None:
    image = ImagePiece(cells=4, positions=4, digest=b"image").keys
    spans = Spans([TokenSpan([1, 0, *image, 1, 0])])
    dry = Dry(Sampling(dry_multiplier=1.0, dry_allowed_length=1), spans, ())
    assert dry_penalties(dry).max() == 0
    penalties = Penalties(Sampling(repeat_penalty=2.0), spans)
    assert sorted(penalties.ids.tolist()) == [0, 1]


@pytest.mark.parametrize("base", [1.75, 1e6])
def test_dry_stays_finite_on_an_endless_repetition(base: float) -> None:
    subject = Dry(
        Sampling(dry_multiplier=5.0, dry_base=base), Spans([TokenSpan([0, 1] * 2000)]), ()
    )
    penalties = dry_penalties(subject)
    assert np.isfinite(penalties).all()
    assert penalties[0] > 1e6
    assert penalties[1] == 0

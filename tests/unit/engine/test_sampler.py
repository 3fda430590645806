"""Sampling: exact distributions, every parameter's edges, and nothing that can crash it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.core.sampling import Sampling
from server.engine.sampling.sampler import NoTokenLeft, Sampler
from server.engine.spans import Spans, TokenSpan

ROW = np.array([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0], dtype=np.float32)
DRAWS = 4000
# The 99.99 % points of chi-square for 1 to 7 degrees of freedom.
CHI_SQUARE_LIMITS = [15.1, 18.4, 21.1, 23.5, 25.7, 27.9, 29.9]


def sampler(*, prompt: list[int] | None = None, size: int = ROW.size, **parameters: Any) -> Sampler:
    sampling = Sampling(**{"seed": 1, **parameters})
    return Sampler(sampling, vocabulary_size=size, history=Spans([TokenSpan(prompt or [])]))


def accept(subject: Sampler, token: int) -> None:
    """What an answer does with a token: it counts, and joins the history."""
    subject.accept(token)
    subject._history.append(token)


def softmax(row: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    scaled = np.exp((row.astype(np.float64) - row.max()) / temperature)
    return np.asarray(scaled / scaled.sum())


def only(row: NDArray[np.float32], kept: list[int]) -> NDArray[np.float32]:
    masked = np.full_like(row, -np.inf)
    masked[kept] = row[kept]
    return masked


def assert_draws_follow(
    expected: NDArray[np.float64], *, answer: Sequence[int] = (), **parameters: Any
) -> None:
    subject = sampler(**parameters)
    for token in answer:
        accept(subject, token)
    counts = np.bincount([subject.sample(ROW) for _ in range(DRAWS)], minlength=ROW.size)
    assert not counts[expected == 0].any(), "a token was drawn that cannot be"
    possible = expected > 0
    if possible.sum() > 1:
        awaited = DRAWS * expected[possible]
        statistic = float(((counts[possible] - awaited) ** 2 / awaited).sum())
        assert statistic < CHI_SQUARE_LIMITS[int(possible.sum()) - 2]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_draws_follow_the_softmax_at_each_temperature(temperature: float) -> None:
    assert_draws_follow(softmax(ROW, temperature), temperature=temperature)


def test_silence_means_temperature_1_and_every_token() -> None:
    assert_draws_follow(softmax(ROW))


def test_the_statistical_test_notices_a_wrong_distribution() -> None:
    with pytest.raises(AssertionError):
        assert_draws_follow(softmax(ROW, 1.2), temperature=1.0)


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [
        ({"top_k": 3}, [0, 1, 2]),
        ({"top_k": 0}, list(range(8))),
        ({"top_k": 99}, list(range(8))),
        # The running sum of the sorted probabilities is 0.41, 0.66, 0.81, 0.90, ...
        ({"top_p": 0.6}, [0, 1]),
        ({"top_p": 0.7}, [0, 1, 2]),
        ({"top_p": 1.0}, list(range(8))),
        # Relative to the largest: 1, 0.61, 0.37, 0.22, ...
        ({"min_p": 0.3}, [0, 1, 2]),
        ({"min_p": 0.0}, list(range(8))),
        # top_p counts what top_k left: of 3 tokens the first two hold 0.81.
        ({"top_k": 3, "top_p": 0.8}, [0, 1]),
        ({"top_p": 0.7, "min_p": 0.5}, [0, 1]),
        # With certainty all tokens of at least 0.14 but the least probable of them go.
        ({"xtc_probability": 1.0, "xtc_threshold": 0.14}, [2, 3, 4, 5, 6, 7]),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.45}, list(range(8))),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.6}, list(range(8))),
        ({"top_k": 3, "xtc_probability": 1.0, "xtc_threshold": 0.2}, [1, 2]),
    ],
)
def test_truncation_keeps_exactly_the_tokens_it_should(
    parameters: dict[str, Any], kept: list[int]
) -> None:
    assert_draws_follow(softmax(only(ROW, kept)), **parameters)


def test_typical_p_keeps_the_tokens_nearest_to_the_entropy() -> None:
    p = softmax(ROW)
    order = np.argsort(np.abs(-np.log(p) + (p * np.log(p)).sum()))
    count = int(np.searchsorted(np.cumsum(p[order]), 0.35)) + 1
    kept = order[:count].tolist()
    assert kept == [1, 2], "a case in which the most probable token is not typical"
    assert_draws_follow(softmax(only(ROW, kept)), typical_p=0.35)


def test_temperature_comes_after_truncation() -> None:
    assert_draws_follow(softmax(only(ROW, [0, 1]), 5.0), top_p=0.6, temperature=5.0)


def test_xtc_strikes_with_its_probability() -> None:
    p = softmax(ROW)
    mixed = 0.75 * p + 0.25 * softmax(only(ROW, [2, 3, 4, 5, 6, 7]))
    assert_draws_follow(mixed, xtc_probability=0.25, xtc_threshold=0.14)


def test_logit_bias_shifts_the_distribution() -> None:
    shifted = ROW.copy()
    shifted[7] += 4
    shifted[0] -= 100
    assert_draws_follow(softmax(shifted), logit_bias={7: 4.0, 0: -100.0})


@pytest.mark.parametrize(
    ("parameters", "losses"),
    [
        ({"presence_penalty": 1.5}, {0: 1.5, 2: 1.5}),
        ({"frequency_penalty": 0.7}, {0: 1.4, 2: 0.7}),
        ({"dry_multiplier": 1.0, "dry_base": 2.0, "dry_allowed_length": 2}, {3: 2.0}),
    ],
)
def test_penalties_shift_the_distribution(
    parameters: dict[str, Any], losses: dict[int, float]
) -> None:
    """Of the answer's tokens; DRY's is that after 0, 2, 0 were written again."""
    shifted = ROW.copy()
    for token, loss in losses.items():
        shifted[token] -= loss
    prompt = [0, 2, 0, 3]
    assert_draws_follow(softmax(shifted), prompt=prompt, answer=[0, 2, 0], **parameters)


def test_the_repeat_penalty_divides_or_multiplies_what_was_seen() -> None:
    shifted = ROW.copy()
    for token in (0, 2, 3):
        shifted[token] = ROW[token] / 1.3 if ROW[token] > 0 else ROW[token] * 1.3
    assert_draws_follow(softmax(shifted), prompt=[3], answer=[0, 2, 0], repeat_penalty=1.3)


def test_a_bias_outside_the_vocabulary_is_ignored() -> None:
    assert sampler(temperature=0, logit_bias={99: 100.0, -1: 100.0}).sample(ROW) == 0


@pytest.mark.parametrize(
    "parameters",
    [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"temperature": 1e-9}],
)
def test_every_way_to_ask_for_the_best_token_gives_it(parameters: dict[str, Any]) -> None:
    subject = sampler(**parameters)
    assert {subject.sample(ROW) for _ in range(50)} == {0}


def test_greedy_is_known_in_advance() -> None:
    assert sampler(temperature=0).greedy
    assert sampler(top_k=1).greedy
    assert not sampler().greedy
    assert not sampler(top_k=1, mirostat=2).greedy


def test_of_equal_logits_greedy_takes_the_first() -> None:
    assert sampler(temperature=0).sample(np.zeros(8, dtype=np.float32)) == 0


def test_a_seed_repeats_and_another_differs() -> None:
    def run(seed: int) -> list[int]:
        subject = sampler(seed=seed)
        return [subject.sample(ROW) for _ in range(50)]

    assert run(7) == run(7)
    assert run(7) != run(8)
    assert len(run(-1)) == len(run(2**63)) == 50


def test_without_a_seed_two_samplers_differ() -> None:
    first, second = sampler(seed=None), sampler(seed=None)
    assert [first.sample(ROW) for _ in range(50)] != [second.sample(ROW) for _ in range(50)]


def test_forks_have_streams_of_their_own_that_repeat() -> None:
    def run(index: int) -> list[int]:
        fork = sampler(seed=5).fork(index, Spans())
        return [fork.sample(ROW) for _ in range(50)]

    assert run(0) == [s.sample(ROW) for s in [sampler(seed=5)] for _ in range(50)]
    assert run(1) == run(1)
    assert run(0) != run(1) != run(2)


def test_a_fork_keeps_the_history_but_shares_none() -> None:
    parent = sampler(temperature=0, presence_penalty=1.0)
    accept(parent, 0)
    fork = parent.fork(1, Spans())
    accept(fork, 1)
    assert fork.sample(ROW) == 0 or fork.sample(ROW) == 2
    assert parent.sample(ROW) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("dtype", ["bool", "bits"])
@pytest.mark.parametrize("size", [8, 1000])
def test_only_allowed_tokens_come(temperature: float, dtype: str, size: int) -> None:
    row = np.random.default_rng(3).normal(0, 2, size).astype(np.float32)
    for allowed in ({3, 5}, set(range(1, size)), {size - 1}):
        mask = np.zeros(size, dtype=bool)
        mask[list(allowed)] = True
        bits = np.zeros((size + 31) // 32 * 32, dtype=bool)
        bits[:size] = mask
        packed = np.packbits(bits, bitorder="little").view(np.uint32)
        subject = sampler(temperature=temperature, size=size)
        drawn = {subject.sample(row, mask if dtype == "bool" else packed) for _ in range(100)}
        assert drawn <= allowed
        if temperature == 0:
            assert drawn == {max(allowed, key=lambda token: float(row[token]))}


def test_a_mask_leaves_the_distribution_of_the_rest() -> None:
    allowed = np.array([False, True, True, False, True, True, False, False])
    subject = sampler()
    counts = np.bincount([subject.sample(ROW, allowed) for _ in range(DRAWS)], minlength=8)
    awaited = DRAWS * softmax(only(ROW, [1, 2, 4, 5]))
    kept = awaited > 0
    assert not counts[~kept].any()
    assert ((counts - awaited)[kept] ** 2 / awaited[kept]).sum() < CHI_SQUARE_LIMITS[2]


@pytest.mark.parametrize("parameters", [{"temperature": 0.0}, {}, {"top_k": 2}, {"mirostat": 2}])
def test_with_no_token_left_it_says_so(parameters: dict[str, Any]) -> None:
    nothing = np.full(8, -np.inf, dtype=np.float32)
    unknown = np.full(8, np.nan, dtype=np.float32)
    for row, allowed in (
        (nothing, None),
        (unknown, None),
        (ROW, np.zeros(8, dtype=bool)),
        (ROW, np.zeros(1, dtype=np.uint32)),
        (only(ROW, [2]), np.arange(8) != 2),
    ):
        with pytest.raises(NoTokenLeft):
            sampler(**parameters).sample(row, allowed)


ALL_PARAMETERS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {},
    {"temperature": 1e-4},
    {"temperature": 1e6},
    {"top_k": 3, "top_p": 0.9, "min_p": 0.05, "temperature": 0.7},
    {"typical_p": 0.9},
    {"repeat_penalty": 1.3, "frequency_penalty": 2.0, "presence_penalty": -2.0},
    {"dry_multiplier": 0.8},
    {"xtc_probability": 1.0},
    {"mirostat": 1},
    {"mirostat": 2},
]


@pytest.mark.parametrize("parameters", ALL_PARAMETERS)
def test_broken_logits_never_crash_and_banned_tokens_never_come(parameters: dict[str, Any]) -> None:
    row = np.array([np.nan, -np.inf, 1, 3e38, np.inf, np.inf, -3e38, -np.inf], dtype=np.float32)
    untouched = row.copy()
    subject = sampler(prompt=[1, 2, 3, 1, 2], **parameters)
    for _ in range(20):
        token = subject.sample(row)
        accept(subject, token)
        assert token in {4, 5}, "infinitely likely tokens come before all others"
    assert np.array_equal(row, untouched, equal_nan=True)


@pytest.mark.parametrize("parameters", ALL_PARAMETERS)
def test_the_models_logits_are_left_as_they_are(parameters: dict[str, Any]) -> None:
    row = ROW.copy()
    subject = sampler(prompt=[0, 1, 0, 1, 0], logit_bias={1: 1.0}, **parameters)
    for allowed in (None, np.ones(8, dtype=bool)):
        accept(subject, subject.sample(row, allowed))
        assert np.array_equal(row, ROW)
    with pytest.raises(NoTokenLeft):
        subject.sample(row, np.zeros(8, dtype=bool))
    assert np.array_equal(row, ROW)


@pytest.mark.parametrize("parameters", ALL_PARAMETERS)
def test_logits_are_only_written_where_the_request_wants_them_changed(
    parameters: dict[str, Any],
) -> None:
    row = ROW.copy()
    row.flags.writeable = False
    subject = sampler(prompt=[0, 1, 0, 1, 0], **parameters)
    if any(name.endswith(("_penalty", "_multiplier")) for name in parameters):
        with pytest.raises(ValueError, match="read-only"):
            subject.sample(row)
    else:
        subject.sample(row)


def test_a_single_possible_token_is_always_drawn() -> None:
    row = only(ROW, [6])
    for parameters in ALL_PARAMETERS:
        assert sampler(**parameters).sample(row) == 6

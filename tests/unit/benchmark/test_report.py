"""The numbers of a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.benchmark.report import percentile, summarize, table
from server.benchmark.target import Run
from server.benchmark.timed_client import Answer


def answer(
    *, tokens: int = 4, first: float = 0.1, gap: float = 0.02, error: str | None = None
) -> Answer:
    return Answer(
        started=0,
        seconds=1,
        error=error,
        first=first,
        gaps=[gap] * (tokens - 1),
        text="x" * tokens,
        completion_tokens=tokens,
    )


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(value) for value in range(1, 101)]
    shares = (0, 0.5, 0.99, 1)
    assert [percentile(values, share) for share in shares] == [1, 50, 99, 100]
    assert percentile([], 0.5) is None
    assert percentile([7.0], 0.99) == 7


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    st.floats(min_value=0, max_value=1),
)
def test_enough_values_lie_at_or_below_a_percentile(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_tokens_per_second_are_over_the_whole_run() -> None:
    summary = summarize(Run(workload="c8", answers=[answer(), answer()], seconds=2.0))
    assert summary.tokens_per_second == 4
    assert summary.characters_per_second == 4
    assert (summary.requests, summary.failed) == (2, 0)
    assert summary.ttft_p50 == pytest.approx(0.1)
    assert summary.itl_max == pytest.approx(0.02)


def test_a_failed_request_counts_as_failed_and_for_nothing_else() -> None:
    answers = [answer(), answer(first=9, gap=9, error="500: no cells")]
    summary = summarize(Run(workload="c8", answers=answers, seconds=1.0))
    assert summary.failed == 1
    assert summary.completion_tokens == 4
    assert summary.ttft_max == pytest.approx(0.1)
    assert summary.itl_max == pytest.approx(0.02)
    assert summary.errors == ["500: no cells"]


def test_a_newcomer_is_a_request_of_its_own() -> None:
    newcomer = answer(first=3, gap=9)
    summary = summarize(Run(workload="stall", answers=[answer()], seconds=1, newcomer=newcomer))
    assert summary.requests == 2
    assert summary.newcomer_ttft == 3
    assert summary.itl_max == pytest.approx(0.02)


def test_the_table_says_what_failed_and_what_was_predicted() -> None:
    failed = summarize(Run(workload="c8", answers=[answer(error="500: oops")], seconds=1))
    predicted = Answer(started=0, seconds=1, accepted_tokens=3, rejected_tokens=1)
    copied = summarize(Run(workload="copy", answers=[predicted], seconds=1))
    heading, first, second = table([failed, copied])
    assert len(heading) == len(first) == len(second)
    assert (first[1], first[-1]) == ("0/1", "500: oops")
    assert second[-1] == "3 of 4 predicted tokens accepted"
    assert "-" in second

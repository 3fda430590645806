from __future__ import annotations

import pytest

from server.engine.pace import LEAST_CHUNK, Pace


def measured(budget: float, *, decode: float, per_token: float) -> Pace:
    pace = Pace(budget)
    for _ in range(50):
        pace.observe(decode_tokens=4, prefill_tokens=0, seconds=decode)
        pace.observe(decode_tokens=0, prefill_tokens=200, seconds=200 * per_token)
    return pace


def test_chunks_fill_the_budget_that_decoding_leaves() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.002)
    assert pace.prefill_tokens_beside_streams(512) == 60


def test_a_slow_machine_still_makes_progress() -> None:
    pace = measured(0.15, decode=0.5, per_token=0.01)
    assert pace.prefill_tokens_beside_streams(512) == LEAST_CHUNK


def test_a_fast_machine_is_bounded_by_the_batch() -> None:
    pace = measured(0.15, decode=0.001, per_token=0.00001)
    assert pace.prefill_tokens_beside_streams(512) == 512


def test_before_any_measurement_chunks_are_small() -> None:
    assert Pace(0.15).prefill_tokens_beside_streams(512) == 4 * LEAST_CHUNK


def test_a_machine_that_gets_slower_is_noticed() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.002)
    for _ in range(30):
        pace.observe(decode_tokens=0, prefill_tokens=100, seconds=0.8)
    assert pace.prefill_tokens_beside_streams(512) < 20


def test_the_cost_of_a_row_is_a_prompt_token_in_steps_of_a_lone_answer() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.002)
    usual = pace.row_cost
    assert 0 < usual < 1
    for _ in range(50):
        pace.observe(decode_tokens=1, prefill_tokens=0, seconds=0.02)
    assert pace.row_cost == pytest.approx(0.1)
    for _ in range(50):
        pace.observe(decode_tokens=0, prefill_tokens=100, seconds=4.0)
    assert pace.row_cost == 1.0

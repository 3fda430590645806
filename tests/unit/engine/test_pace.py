from __future__ import annotations

import pytest

from server.engine.scheduling.pace import LEAST_CHUNK, Pace


def measured(budget: float, *, decode: float, per_token: float, tiles: bool = True) -> Pace:
    pace = Pace(budget, tiles=tiles)
    for _ in range(50):
        pace.observe(sequences=4, decode_tokens=4, prefill_tokens=0, seconds=decode)
        pace.observe(sequences=0, decode_tokens=0, prefill_tokens=40, seconds=40 * per_token)
        pace.observe(sequences=0, decode_tokens=0, prefill_tokens=200, seconds=200 * per_token)
    return pace


def test_chunks_fill_the_budget_that_decoding_leaves() -> None:
    pace = measured(0.13, decode=0.03, per_token=0.002)
    assert pace.prefill_tokens_beside_streams(512, 4) == 50


def test_a_slow_machine_still_makes_progress() -> None:
    pace = measured(0.15, decode=0.5, per_token=0.01)
    assert pace.prefill_tokens_beside_streams(512, 4) == LEAST_CHUNK


def test_a_fast_machine_is_bounded_by_the_batch() -> None:
    pace = measured(0.15, decode=0.001, per_token=0.00001)
    assert pace.prefill_tokens_beside_streams(512, 4) == 512


def test_before_any_measurement_chunks_are_small() -> None:
    assert Pace(0.15).prefill_tokens_beside_streams(512, 3) == 4 * LEAST_CHUNK - 3


def test_a_machine_that_gets_slower_is_noticed() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.002)
    for _ in range(30):
        pace.observe(sequences=0, decode_tokens=0, prefill_tokens=50, seconds=0.4)
    assert pace.prefill_tokens_beside_streams(512, 4) < 20


def test_a_row_costs_the_same_however_few_the_drafts_are() -> None:
    """Measured: 9.6 ms for one row, 17.2 for two, 42.8 for eight, 83.6 for sixteen."""
    costs = []
    for rows, seconds in ((2, 0.0172), (8, 0.0428), (16, 0.0836)):
        pace = Pace(0.25)
        pace.observe(sequences=1, decode_tokens=1, prefill_tokens=0, seconds=0.0096)
        for _ in range(50):
            pace.observe(sequences=1, decode_tokens=rows, prefill_tokens=0, seconds=seconds)
        costs.append(pace.row_cost)
    assert max(costs) - min(costs) < 0.06


def test_the_cost_of_a_row_is_learnt_from_drafts_and_not_from_prompts() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.002)
    usual = pace.row_cost
    assert 0 < usual < 1
    for _ in range(50):
        pace.observe(sequences=1, decode_tokens=1, prefill_tokens=0, seconds=0.02)
        pace.observe(sequences=0, decode_tokens=0, prefill_tokens=50, seconds=2.0)
        pace.observe(sequences=16, decode_tokens=16, prefill_tokens=0, seconds=2.0)
    assert pace.row_cost == pytest.approx(usual)
    for _ in range(50):
        pace.observe(sequences=1, decode_tokens=5, prefill_tokens=0, seconds=0.02 + 4 * 0.018)
    assert pace.row_cost == pytest.approx(0.9, abs=0.1)
    for _ in range(50):
        pace.observe(sequences=1, decode_tokens=5, prefill_tokens=0, seconds=0.0)
    assert 0 < pace.row_cost < usual
    for _ in range(500):
        pace.observe(sequences=1, decode_tokens=1, prefill_tokens=0, seconds=0.02)
    assert pace.row_cost == pytest.approx(usual, abs=0.01), "drafts are tried again in time"


def test_a_deep_prompt_gets_a_tile_if_that_costs_at_most_two_budgets() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.004)
    assert pace.prefill_tokens_beside_streams(512, 4) == 30
    assert pace.prefill_tokens_beside_streams(512, 4, deep=True) == 64 - 4
    pace = measured(0.15, decode=0.03, per_token=0.005)
    assert pace.prefill_tokens_beside_streams(512, 4, deep=True) == 24


def test_beside_many_streams_a_step_stays_below_a_tile_unless_two_fit() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.0015)
    assert pace.prefill_tokens_beside_streams(512, 8) == 55
    pace = measured(0.15, decode=0.03, per_token=0.001)
    assert pace.prefill_tokens_beside_streams(512, 8) == 120


def test_a_deep_prompt_gets_whole_tiles_streams_included() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.0015)
    assert pace.prefill_tokens_beside_streams(512, 8, deep=True) == 64 - 8
    pace = measured(0.15, decode=0.03, per_token=0.0008)
    assert pace.prefill_tokens_beside_streams(512, 8, deep=True) == 2 * 64 - 8


@pytest.mark.parametrize(
    ("per_token", "count"), [(0.01, LEAST_CHUNK), (0.004, 30), (0.0015, 80), (0.0001, 512)]
)
@pytest.mark.parametrize("deep", [False, True])
def test_where_attention_has_no_tiles_every_chunk_fills_the_budget(
    per_token: float, count: int, deep: bool
) -> None:
    pace = measured(0.15, decode=0.03, per_token=per_token, tiles=False)
    assert pace.prefill_tokens_beside_streams(512, 8, deep=deep) == count


def test_where_attention_has_no_tiles_large_steps_count_as_well() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.002, tiles=False)
    for _ in range(50):
        pace.observe(sequences=0, decode_tokens=0, prefill_tokens=200, seconds=200 * 0.0041)
    assert pace.prefill_tokens_beside_streams(512, 8) == 29


def test_a_tile_is_judged_by_tiles() -> None:
    pace = measured(0.15, decode=0.03, per_token=0.002)
    for _ in range(50):
        pace.observe(sequences=4, decode_tokens=4, prefill_tokens=30, seconds=0.3)
    assert pace.prefill_tokens_beside_streams(512, 4) == LEAST_CHUNK
    assert pace.prefill_tokens_beside_streams(512, 4, deep=True) == 64 - 4


def test_a_part_of_an_image_takes_about_as_long_as_four_steps_of_streams() -> None:
    pace = measured(0.25, decode=0.01, per_token=0.001)
    # Four steps take as long as 40 of 256 cells: seven parts.
    assert pace.image_cells_beside_streams(256, 240) == 37


def test_an_image_is_cut_into_equal_parts_of_no_more_than_the_budget_allows() -> None:
    pace = measured(0.25, decode=0.2, per_token=0.001)
    assert pace.image_cells_beside_streams(256, 50) == 43
    assert pace.image_cells_beside_streams(30, 50) == 30
    assert pace.image_cells_beside_streams(1, 50) == 1


def test_parts_of_an_image_are_no_smaller_than_the_smallest_chunk_of_a_prompt() -> None:
    pace = measured(0.25, decode=0.001, per_token=0.001)
    assert pace.image_cells_beside_streams(256, 240) == LEAST_CHUNK


def test_before_any_measurement_an_image_is_read_like_a_prompt() -> None:
    assert Pace(0.25).image_cells_beside_streams(256, 64) == 64


def test_chunks_beside_streams_keep_the_budget_while_a_prompt_gets_deeper() -> None:
    """A token of a prompt takes longer the more lie before it, and averages come late."""
    pace = measured(0.25, decode=0.025, per_token=0.0008)
    done, longest = 0, 0.0
    while done < 4000:
        count = pace.prefill_tokens_beside_streams(512, 3, deep=True)
        seconds = 0.025 + count * (0.0008 + 0.0000003 * done)
        pace.observe(sequences=3, decode_tokens=3, prefill_tokens=count, seconds=seconds)
        done += count
        longest = max(longest, seconds)
    assert longest < 0.255


def test_a_deep_prompt_gets_tiles_again_after_a_step_that_something_else_made_slow() -> None:
    pace = measured(0.2, decode=0.03, per_token=0.003)
    pace.observe(sequences=4, decode_tokens=4, prefill_tokens=60, seconds=0.6)
    assert pace.prefill_tokens_beside_streams(512, 4, deep=True) == 64 - 4

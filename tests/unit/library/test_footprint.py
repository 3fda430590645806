from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.core.worker_settings import WorkerSettings
from server.library.footprint import (
    buffer_bytes,
    estimate_memory,
    kv_bytes,
    least_stored_tokens,
    most_stored_tokens,
    outputs_per_batch,
    sequence_ids,
)
from server.library.gguf import read_header
from tests.unit.library.random_models import EMBEDDING, LAYERS, write_model

SETTINGS = WorkerSettings(parallel=1)
HEAD = EMBEDDING // 4
KV_HEADS = 2
PER_CELL = LAYERS * KV_HEADS * 2 * HEAD


def cells(tmp_path: Path, count: int = 1, kv_type: Any = "f32", **keys: Any) -> int:
    """Numbers per cell (each 4 bytes in f32) of a model with these keys."""
    return kv_bytes(read_header(write_model(tmp_path / "m.gguf", **keys)), count, kv_type) // 4


def test_kv_cells_hold_keys_and_values_of_every_layer(tmp_path: Path) -> None:
    assert cells(tmp_path) == PER_CELL
    assert cells(tmp_path, count=100) == 100 * PER_CELL


@pytest.mark.parametrize(
    ("kv_type", "size"), [("f32", 4), ("f16", 2), ("q8_0", 34 / 32), ("q4_0", 18 / 32)]
)
def test_the_kv_type_sets_the_bytes_per_number(tmp_path: Path, kv_type: Any, size: float) -> None:
    header = read_header(write_model(tmp_path / "m.gguf"))
    assert kv_bytes(header, 64, kv_type) == 64 * PER_CELL * size


def test_stated_key_and_value_lengths_count(tmp_path: Path) -> None:
    lengths = {"llama__attention__key_length": 10, "llama__attention__value_length": 6}
    assert cells(tmp_path, **lengths) == LAYERS * KV_HEADS * 16


def test_layers_without_kv_heads_have_no_cells(tmp_path: Path) -> None:
    assert cells(tmp_path, llama__attention__head_count_kv=[0, 2]) == PER_CELL // 2


def test_a_sliding_window_counts_in_full_where_all_cells_are_kept(tmp_path: Path) -> None:
    assert cells(tmp_path, llama__attention__sliding_window=8) == PER_CELL


def test_short_windows_count_as_a_window_for_each_sequence_and_a_batch(tmp_path: Path) -> None:
    windows: dict[str, Any] = {
        "llama__attention__sliding_window": 100,
        "llama__attention__sliding_window_pattern": [True, False],
    }
    header = read_header(write_model(tmp_path / "m.gguf", **windows))
    kept = 512  # 2 ids with 100 each, and 256 of a physical batch, in multiples of 256

    def estimate(count: int, **more: Any) -> int:
        settings = WorkerSettings(parallel=1, ubatch_size=256, swa_full=False, **more)
        return estimate_memory(header, count, settings) - buffer_bytes(header, count, settings)

    least = estimate(0)
    half = PER_CELL  # one of two layers, two bytes for each number
    assert estimate(10_000) - least == 10_000 * half + kept * half
    full = WorkerSettings(parallel=1, ubatch_size=256)
    in_full = estimate_memory(header, 400, full) - buffer_bytes(header, 400, full)
    assert estimate(400) == in_full, "fewer cells than that are all kept"


def test_a_window_that_llama_cpp_leaves_out_saves_nothing(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", architecture="phi3", phi3__attention__sliding_window=8)
    header = read_header(path)
    short, full = WorkerSettings(swa_full=False), WorkerSettings()
    assert estimate_memory(header, 9999, short) == estimate_memory(header, 9999, full)


def test_heads_of_window_layers_may_have_another_length(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "llama__attention__key_length_swa": 4,
        "llama__attention__value_length_swa": 4,
        "llama__attention__sliding_window_pattern": [True, False],
    }
    assert cells(tmp_path, **keys) == KV_HEADS * (8 + 2 * HEAD)


def test_layers_that_share_another_layers_cells_do_not_count(tmp_path: Path) -> None:
    assert cells(tmp_path, llama__attention__shared_kv_layers=1) == PER_CELL // 2


def test_only_each_nth_layer_has_cells_where_the_file_says_so(tmp_path: Path) -> None:
    assert cells(tmp_path, llama__full_attention_interval=2) == PER_CELL // 2


def test_recurrent_state_counts_per_sequence_and_not_per_cell(tmp_path: Path) -> None:
    header = read_header(
        write_model(
            tmp_path / "m.gguf",
            llama__ssm__inner_size=64,
            llama__ssm__state_size=16,
            llama__ssm__conv_kernel=4,
            llama__ssm__group_count=1,
        )
    )
    one, five = (estimate_memory(header, 0, WorkerSettings(parallel=count)) for count in (1, 5))
    assert sequence_ids(5) - sequence_ids(1) == 8
    assert five - one == 8 * LAYERS * 4 * (3 * (64 + 2 * 16) + 64 * 16)


def test_the_estimate_grows_by_exactly_the_cells(tmp_path: Path) -> None:
    header = read_header(write_model(tmp_path / "m.gguf"))
    grown = estimate_memory(header, 2000, SETTINGS) - estimate_memory(header, 1000, SETTINGS)
    mask = SETTINGS.ubatch_size * 1000 * 2
    assert grown == kv_bytes(header, 1000 + least_stored_tokens(1000), "f16") + mask
    assert estimate_memory(header, 0, SETTINGS) > header.tensors.data_bytes


def test_the_physical_batch_sets_the_compute_buffer(tmp_path: Path) -> None:
    header = read_header(write_model(tmp_path / "m.gguf", llama__feed_forward_length=64))
    activations, mask = (4 * EMBEDDING + 3 * 64) * 4, 1000 * 2

    def buffers(**settings: int) -> int:
        return buffer_bytes(header, 1000, WorkerSettings(parallel=1, **settings))  # type: ignore[arg-type]

    assert buffers(ubatch_size=512) - buffers(ubatch_size=256) == 256 * (activations + mask)
    assert buffers(batch_size=2048) == buffers(), "a logical batch is computed in physical ones"
    assert buffers(batch_size=256) == buffers(ubatch_size=256), "a physical batch is no larger"


def test_where_the_logits_are_larger_they_set_the_compute_buffer(tmp_path: Path) -> None:
    header = read_header(write_model(tmp_path / "m.gguf", vocabulary=5000))
    logits = outputs_per_batch(sequence_ids(1, partial_removal=True)) * 5000 * 4
    for size in (64, 128):
        assert buffer_bytes(header, 256, WorkerSettings(ubatch_size=size)) == 2 * logits


def test_without_flash_attention_scores_take_memory_too(tmp_path: Path) -> None:
    header = read_header(write_model(tmp_path / "m.gguf"))
    with_scores = WorkerSettings(parallel=1, flash_attention="off")
    difference = buffer_bytes(header, 1000, with_scores) - buffer_bytes(header, 1000, SETTINGS)
    assert difference == 512 * 1000 * ((4 + 1) * 4 - 2)


def test_the_store_takes_what_memory_is_left_up_to_as_many_tokens_as_there_are_cells(
    tmp_path: Path,
) -> None:
    header = read_header(write_model(tmp_path / "m.gguf"))
    least = estimate_memory(header, 1000, SETTINGS)
    ten = kv_bytes(header, 10, "f16")
    for spare, stored in ((-1, 250), (0, 250), (ten, 260), (10**9, 1000)):
        assert most_stored_tokens(header, 1000, SETTINGS, least + spare) == stored
    assert estimate_memory(header, 1000, SETTINGS, stored_tokens=260) == least + ten

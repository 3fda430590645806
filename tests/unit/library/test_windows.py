"""Which layers have a sliding window, as llama.cpp's loaders have it (b11434)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.core.worker_settings import WorkerSettings
from server.library.gguf import read_header
from server.library.windows import window_cells, window_layers
from tests.unit.library.random_models import write_model


@pytest.mark.parametrize(
    ("architecture", "keys", "full"),
    [
        ("gemma3", {}, [5, 11]),
        ("gpt-oss", {}, [1, 3, 5, 7, 9, 11]),
        ("smallthinker", {}, [0, 4, 8]),
        ("cohere2", {"attention__sliding_window_pattern": 6}, [5, 11]),
        ("gemma3", {"attention__sliding_window_pattern": [True] * 11 + [False]}, [11]),
        ("phi3", {}, [*range(12)]),
    ],
)
def test_layers_without_a_window_are_those_that_llama_cpp_has(
    tmp_path: Path, architecture: str, keys: dict[str, Any], full: list[int]
) -> None:
    named = {f"{architecture}__{key}": value for key, value in keys.items()}
    named[f"{architecture}__attention__sliding_window"] = 64
    path = write_model(tmp_path / "m.gguf", architecture=architecture, **named)
    found = window_layers(read_header(path), 12)
    assert [layer for layer, in_window in enumerate(found) if not in_window] == full


def test_no_layer_has_a_window_where_the_file_states_none(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", architecture="gemma3")
    assert window_layers(read_header(path), 6) == [False] * 6


@pytest.mark.parametrize(
    ("window", "cells", "ids", "kept"),
    [(512, 32_768, 8, 4608), (512, 4096, 8, 4096), (1024, 131_072, 32, 33_280), (1, 9999, 1, 768)],
)
def test_short_windows_keep_what_llama_cpp_reserves(
    window: int, cells: int, ids: int, kept: int
) -> None:
    assert window_cells(window, cells, ids, WorkerSettings(swa_full=False)) == kept
    assert window_cells(window, cells, ids, WorkerSettings()) == cells

"""The memory estimate beside the buffers that llama.cpp says it reserves."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest

from server.core.worker_settings import WorkerSettings
from server.engine.llama import library
from server.library.footprint import buffer_bytes, estimate_memory
from server.library.model_header import read_model_at
from server.worker.protocol import Load
from server.worker.serve.load import load
from tests.tiny_models import LAYERS, write_tiny_model

pytestmark = pytest.mark.process

MIB = 1 << 20
CELLS = 2048


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Everything that llama.cpp logs, notes included."""
    lines: list[str] = []
    take = llama_cpp.llama_log_callback(lambda _, text, __: lines.append(text.decode()))
    llama_cpp.llama_log_set(take, ctypes.c_void_p(0))
    yield lines
    llama_cpp.llama_log_set(library.log.callback, ctypes.c_void_p(0))


@pytest.mark.parametrize(
    ("ubatch_size", "batch_size"), [(256, 256), (512, 512), (512, 2048), (1024, 1024)]
)
def test_buffers_are_estimated_as_llama_cpp_reserves_them(
    tmp_path: Path, log: list[str], ubatch_size: int, batch_size: int
) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", "full attention")
    settings = WorkerSettings(
        safe_mode=True, kv_tokens=CELLS, batch_size=batch_size, ubatch_size=ubatch_size
    )
    load(Load(model_id="tiny", path=str(path), settings=settings), lambda _: None)
    found = re.findall(r"(?:compute|output) buffer size += +([\d.]+) MiB", "".join(log))
    # `reads_in_parts` makes a context for a moment; the last one serves.
    reserved = sum(map(float, found[-2:]))
    estimated = buffer_bytes(read_model_at(path), CELLS, settings)
    assert estimated == pytest.approx(reserved * MIB, rel=0.2)


@pytest.mark.parametrize(
    ("swa_full", "batch_size", "window_cells"),
    [(True, 512, CELLS), (False, 512, 1024), (False, 64, 768)],
)
def test_cells_of_sliding_windows_are_counted_as_llama_cpp_reserves_them(
    tmp_path: Path, log: list[str], swa_full: bool, batch_size: int, window_cells: int
) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", "sliding window", window=16)
    header = read_model_at(path)
    settings = WorkerSettings(
        safe_mode=True, kv_tokens=CELLS, batch_size=batch_size, swa_full=swa_full
    )
    load(Load(model_id="tiny", path=str(path), settings=settings), lambda _: None)
    found = re.findall(r"size = +([\d.]+) MiB \( *(\d+) cells, +(\d+) layers", "".join(log))
    (reserved, cells, layers) = found[-1]
    assert (int(cells), int(layers)) == (window_cells, LAYERS)
    without = estimate_memory(header, 0, settings, stored_tokens=0)
    cells_and_masks = estimate_memory(header, CELLS, settings, stored_tokens=0) - without
    masks = buffer_bytes(header, CELLS, settings) - buffer_bytes(header, 0, settings)
    assert cells_and_masks - masks == pytest.approx(float(reserved) * MIB, rel=0.01)

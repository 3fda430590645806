"""What files of prefixes on disk are valid for: contents of the model, build, and settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.core.worker_settings import WorkerSettings
from server.library.file_facts import file_facts
from server.worker.serve import prefixes
from server.worker.serve.prefixes import Fingerprint
from tests.api.fakes import model_info

Make = Callable[..., Fingerprint]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the fingerprint of files as a worker does that has just loaded them."""
    library = tmp_path / "libllama.so"
    library.write_bytes(b"code")
    monkeypatch.setattr(prefixes, "build_files", lambda: [library])
    notes = tmp_path / "prefixes"
    notes.mkdir()

    def make(
        *files: Path,
        gpu_layers: int = 0,
        safe_mode: bool = False,
        whole_states: bool = False,
        **settings: Any,
    ) -> Fingerprint:
        info = msgspec.structs.replace(model_info("m"), gpu_layers=gpu_layers, safe_mode=safe_mode)
        given = WorkerSettings(**settings)
        return Fingerprint(info, file_facts(files), given, notes, whole_states=whole_states)

    return make


def overwrite(path: Path, contents: bytes) -> None:
    """Change a file in a way that only its time of change tells."""
    before = path.stat()
    path.write_bytes(contents)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_it_is_that_of_the_contents_wherever_they_lie(
    make: Make, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(model.read_bytes())
    assert make(copy)() == make(model)()


def test_other_weights_of_the_same_size_and_time_have_another(make: Make, model: Path) -> None:
    before = make(model)()
    overwrite(model, b"WEIGHTS")
    assert make(model)() != before


def test_everything_that_changes_cells_changes_it(
    make: Make, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eyes = tmp_path / "mmproj.gguf"
    eyes.write_bytes(b"eyes")
    seen = [
        make(model)(),
        make(model, eyes)(),
        make(model, kv_type="q8_0")(),
        make(model, whole_states=True)(),
        make(model, flash_attention="off")(),
        make(model, safe_mode=True)(),
        make(model, gpu_layers=1)(),
    ]
    monkeypatch.setenv("LLAMA_ATTN_ROT_DISABLE", "1")
    seen.append(make(model)())
    monkeypatch.delenv("LLAMA_ATTN_ROT_DISABLE")
    monkeypatch.setenv("GGML_DRAGOMAN_AVX2", "1")
    seen.append(make(model)())
    monkeypatch.delenv("GGML_DRAGOMAN_AVX2")
    overwrite(tmp_path / "libllama.so", b"CODE")
    seen.append(make(model)())
    monkeypatch.setattr(prefixes, "build_description", lambda: "another build")
    seen.append(make(model)())
    assert len(set(seen)) == len(seen)


def test_a_new_name_of_a_file_is_no_change(make: Make, model: Path, tmp_path: Path) -> None:
    fingerprint = make(model)
    before = fingerprint()
    (tmp_path / "linked.gguf").hardlink_to(model)
    assert fingerprint() == before
    model.unlink()
    model.hardlink_to(tmp_path / "linked.gguf")
    assert fingerprint() == before


@pytest.mark.parametrize("asked_before", [True, False])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_changed_after_loading_is_an_error(
    make: Make, model: Path, tmp_path: Path, asked_before: bool, replaced: bool
) -> None:
    fingerprint = make(model)
    if asked_before:
        fingerprint()
    if replaced:
        other = tmp_path / "other"
        other.write_bytes(b"WEIGHTS")
        other.replace(model)
    else:
        overwrite(model, b"WEIGHTS")
    for _ in range(2):
        with pytest.raises(OSError, match="have changed since they were loaded"):
            fingerprint()

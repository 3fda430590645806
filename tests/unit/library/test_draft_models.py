"""Which files draft for a model, and the memory that they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.core.worker_settings import WorkerSettings
from server.library.footprint import draft_memory, estimate_memory
from server.library.header import GgufHeader
from server.library.model_header import read_model_at
from server.library.registry import LibraryModel, ModelsFolder
from tests.unit.library.random_models import write_model, write_split


def scanned(folder: Path, draft: str, **keys: Any) -> LibraryModel:
    write_model(folder / "large.gguf", **keys)
    (folder / "large.toml").write_text(f'draft = "{draft}"\n')
    return next(model for model in ModelsFolder(folder).scan() if model.id == "large")


def test_a_sidecar_names_the_file_from_its_folder_on(tmp_path: Path) -> None:
    write_model(tmp_path / "drafts" / "small.gguf")
    model = scanned(tmp_path, "drafts/small.gguf")
    assert (model.error, model.warnings) == (None, [])
    assert model.settings.draft is not None
    assert model.settings.draft.path == str(tmp_path / "drafts" / "small.gguf")
    assert model.outline is not None
    assert model.outline.draft == "small.gguf"


def test_the_first_part_of_a_split_model_drafts(tmp_path: Path) -> None:
    parts = write_split(tmp_path, "small", 2)
    draft = scanned(tmp_path, parts[1].name).settings.draft
    assert draft is not None
    assert draft.path == str(parts[0])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (None, "large.toml: draft: small.gguf: No such file"),
        ({"general__type": "adapter"}, "large.toml: draft: small.gguf: not a language model"),
        ({"architecture": "clip"}, "large.toml: draft: small.gguf: not a language model"),
        ({"llama__pooling_type": 1}, "large.toml: draft: small.gguf: it is made for embeddings"),
        ({"llama__pooling_type": 4}, "large.toml: draft: small.gguf: it is made for ranking"),
    ],
)
def test_a_file_that_cannot_draft_is_named_with_the_reason(
    tmp_path: Path, keys: dict[str, object] | None, said: str
) -> None:
    if keys is not None:
        write_model(tmp_path / "small.gguf", **keys)  # type: ignore[arg-type]
    error = scanned(tmp_path, "small.gguf").error
    assert error is not None
    assert error.startswith(said)


@pytest.mark.parametrize("pooling", [1, 4])
def test_a_model_that_generates_no_text_is_served_without_the_draft(
    tmp_path: Path, pooling: int
) -> None:
    write_model(tmp_path / "small.gguf")
    model = scanned(tmp_path, "small.gguf", llama__pooling_type=pooling)
    assert (model.error, model.settings.draft) == (None, None)
    assert model.warnings == ["large.toml: draft: ignored, since the model generates no text"]


def test_a_model_does_not_draft_for_itself(tmp_path: Path) -> None:
    for name in ("large.gguf", "link.gguf"):
        if name == "link.gguf":
            (tmp_path / name).symlink_to(tmp_path / "large.gguf")
        said = f"large.toml: draft: {name}: it is the model itself"
        assert scanned(tmp_path, name).error == said


@pytest.mark.parametrize("tokens", [40, 300])
def test_another_vocabulary_shows_before_anything_is_loaded(tmp_path: Path, tokens: int) -> None:
    """A vocabulary of 300 tokens is compared in the file, a shorter one is kept in the header."""
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    key = {"tokenizer__ggml__model": "gpt2"}
    for more in (0, 30, -20):
        write_model(small, vocabulary=tokens + more, **key)
        write_model(large, vocabulary=tokens, **key)
        (tmp_path / "large.toml").write_text('draft = "small.gguf"')
        folder = ModelsFolder(tmp_path)
        assert next(model for model in folder.scan() if model.id == "large").error is None
        small.write_bytes(small.read_bytes().replace(b"<7>", b"<8>", 1))
        changed = next(model for model in folder.scan() if model.id == "large").error
        assert changed == "large.toml: draft: small.gguf: it has another vocabulary"


def test_a_file_that_is_no_model_at_all_is_named(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"nothing")
    error = scanned(tmp_path, "small.gguf").error
    assert error is not None
    assert error.startswith("large.toml: draft: small.gguf: ")


def header(tmp_path: Path) -> GgufHeader:
    return read_model_at(write_model(tmp_path / "small.gguf"))


def test_the_memory_of_a_model_includes_its_draft_model(tmp_path: Path) -> None:
    alone = ModelsFolder(tmp_path)
    write_model(tmp_path / "large.gguf")
    (before,) = alone.scan()
    write_model(tmp_path / "drafts" / "small.gguf")
    after = scanned(tmp_path, "drafts/small.gguf")
    memory, cell = draft_memory(header(tmp_path / "drafts"), after.settings)
    assert after.memory_bytes == before.memory_bytes + memory + 256 * cell


@pytest.mark.parametrize("cells", [0, 1, 1000, 100_000])
def test_the_memory_of_drafts_is_never_estimated_too_low(tmp_path: Path, cells: int) -> None:
    settings = WorkerSettings()
    small = header(tmp_path)
    memory, cell = draft_memory(small, settings)
    process = estimate_memory(small, 0, settings, stored_tokens=0) - memory
    assert memory + cells * cell >= (
        estimate_memory(small, cells, settings, stored_tokens=0) - process
    )

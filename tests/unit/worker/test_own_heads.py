"""A model's own head, loaded with the model; where it cannot draft, the model is served without."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.core.worker_settings import DraftFile, WorkerSettings
from server.engine.llama import LoadError
from server.worker.protocol import Load
from server.worker.serve.load import GenerationModel, VocabularyOnly, load
from tests.tiny_heads import ARCHITECTURES, write_model_with_head

pytestmark = pytest.mark.process


def loaded(model: Path, draft: Path | None = None) -> GenerationModel:
    file = DraftFile(path=str(draft), memory_bytes=1 << 20, cell_bytes=100) if draft else None
    settings = WorkerSettings(safe_mode=True, parallel=2, threads=1, draft=file)
    found = load(Load(model_id="base", path=str(model), settings=settings), lambda _: None)
    assert isinstance(found, GenerationModel)
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_head_is_loaded_with_its_model(architecture: str, tmp_path: Path) -> None:
    model = loaded(write_model_with_head(tmp_path / "head.gguf", architecture))
    assert model.info.draft == "mtp"
    assert model.info.warnings == []
    assert model.draft is not None
    assert model.draft.is_head
    assert model.draft.kv_cells == model.context.kv_cells


def test_a_model_that_is_named_drafts_instead(tmp_path: Path) -> None:
    path = write_model_with_head(tmp_path / "head.gguf")
    other = write_model_with_head(tmp_path / "other.gguf", seed=3)
    model = loaded(path, other)
    assert model.info.draft == "other.gguf"
    assert model.info.warnings == []
    assert model.draft is not None
    assert not model.draft.is_head


def test_a_head_that_is_not_in_the_file_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = write_model_with_head(tmp_path / "lacking.gguf", without="eh_proj")
    model = loaded(path)
    assert model.draft is None
    assert model.info.draft is None
    (warning,) = model.info.warnings
    said = "the model's own head (MTP) does not draft: its tensors are not in the file"
    assert warning == said


def test_a_file_that_lacks_another_tensor_is_refused_with_its_name(tmp_path: Path) -> None:
    """llama.cpp loads none, with or without the head."""
    path = write_model_with_head(tmp_path / "lacking.gguf", without="hnorm")
    with pytest.raises(LoadError, match=r"blk\.3\.nextn\.hnorm\.weight"):
        loaded(path)


def test_a_head_that_cannot_be_computed_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise LoadError("no memory")

    monkeypatch.setattr("server.worker.serve.draft.open_head", failing)
    model = loaded(write_model_with_head(tmp_path / "head.gguf"))
    assert model.draft is None
    assert model.info.warnings == ["the model's own head (MTP) does not draft: no memory"]


def test_it_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    path = write_model_with_head(tmp_path / "lacking.gguf", without="eh_proj")
    request = Load(model_id="base", path=str(path), settings=WorkerSettings(), vocabulary_only=True)
    found = load(request, lambda _: None)
    assert isinstance(found, VocabularyOnly)
    assert any("its tensors are not in the file" in warning for warning in found.info.warnings)

"""Draft models, loaded in the worker of the model that they draft for."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from server.core.worker_settings import DraftFile, WorkerSettings
from server.engine.llama import LoadError
from server.worker.protocol import Load
from server.worker.serve.load import EmbeddingModel, GenerationModel, RankingModel, load
from tests.tiny_models import write_tiny_encoder, write_tiny_model

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base") / "base.gguf", "full attention")


def loaded(model: Path, draft: Path) -> GenerationModel | EmbeddingModel | RankingModel:
    settings = WorkerSettings(
        safe_mode=True,
        parallel=2,
        threads=1,
        draft=DraftFile(path=str(draft), memory_bytes=1 << 20, cell_bytes=100),
    )
    found = load(Load(model_id="base", path=str(model), settings=settings), lambda _: None)
    assert isinstance(found, GenerationModel | EmbeddingModel | RankingModel)
    return found


@pytest.mark.parametrize("kind", ["full attention", "sliding window"])
def test_a_draft_model_has_as_many_cells_as_its_model(
    base: Path, tmp_path: Path, kind: str
) -> None:
    small = write_tiny_model(tmp_path / "small.gguf", kind, seed=3)
    model = loaded(base, small)
    assert isinstance(model, GenerationModel)
    assert model.draft is not None
    assert model.draft.kv_cells == model.context.kv_cells
    assert model.info.draft == "small.gguf"
    assert model.info.warnings == []


def test_a_vocabulary_with_more_tokens_at_its_end_will_do(base: Path, tmp_path: Path) -> None:
    longer = write_tiny_model(tmp_path / "longer.gguf", "full attention", words=["more"])
    assert loaded(base, longer).info.draft == "longer.gguf"
    assert loaded(longer, base).info.draft == "base.gguf"


def test_a_model_that_cannot_draft_is_refused_with_the_reason(base: Path, tmp_path: Path) -> None:
    ranks = tmp_path / "encoder.gguf"
    write_tiny_encoder(ranks, gguf.PoolingType.MEAN)
    one = write_tiny_model(tmp_path / "one.gguf", "full attention", words=["one"])
    two = write_tiny_model(tmp_path / "two.gguf", "full attention", words=["two"])
    recurrent = write_tiny_model(tmp_path / "recurrent.gguf", "recurrent")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(base.read_bytes()[:5000])
    for draft, reason in [
        (ranks, "it does not generate"),
        (recurrent, "its state cannot be cut back"),
        (two, "it has another vocabulary: token 259 is 'two', not 'one'"),
        (broken, ""),
        (tmp_path / "missing.gguf", ""),
    ]:
        with pytest.raises(LoadError) as caught:
            loaded(one, draft)
        said = str(caught.value)
        assert f"the draft model {draft.name} cannot be used: {reason}" in said
        assert "without the key draft in its TOML file, base is served" in said


def test_a_model_that_no_other_can_draft_for_is_served_with_a_warning(
    base: Path, tmp_path: Path
) -> None:
    recurrent = write_tiny_model(tmp_path / "recurrent.gguf", "recurrent")
    encoder = write_tiny_encoder(tmp_path / "encoder.gguf", gguf.PoolingType.MEAN)
    for path, reason in [
        (recurrent, "its state cannot be cut back"),
        (encoder, "it does not generate"),
    ]:
        info = loaded(path, base).info
        assert info.draft is None
        assert f"base.gguf does not draft for this model: {reason}" in info.warnings

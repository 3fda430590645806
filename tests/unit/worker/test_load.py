"""What a worker has ready once its model is loaded."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import gguf
import pytest

from server.core.model_info import ModelInfo
from server.core.request import TextPrompt
from server.core.worker_settings import WorkerSettings
from server.engine.llama import LoadError
from server.worker.protocol import Load, Render
from server.worker.serve import layout, opening
from server.worker.serve import load as load_module
from server.worker.serve.load import EmbeddingModel, GenerationModel, VocabularyOnly, load
from server.worker.serve.prepare import render
from tests.tiny_models import CONTEXT, LAYERS, write_tiny_encoder, write_tiny_model

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "full attention")


def loaded(path: Path, **settings: int) -> GenerationModel:
    wanted = WorkerSettings(safe_mode=True, parallel=2, **settings)  # type: ignore[arg-type]
    model = load(Load(model_id="tiny", path=str(path), settings=wanted), lambda _: None)
    assert isinstance(model, GenerationModel)
    return model


def test_what_a_model_is_for_decides_what_is_loaded(path: Path, tmp_path: Path) -> None:
    encoder = write_tiny_encoder(tmp_path / "encoder.gguf", gguf.PoolingType.MEAN)
    settings = WorkerSettings(safe_mode=True, threads=1)

    def kind(file: Path, *, vocabulary_only: bool = False) -> type[object]:
        request = Load(
            model_id="tiny", path=str(file), settings=settings, vocabulary_only=vocabulary_only
        )
        return type(load(request, lambda _: None))

    assert kind(path) is GenerationModel
    assert kind(encoder) is EmbeddingModel
    assert kind(path, vocabulary_only=True) is VocabularyOnly
    assert kind(encoder, vocabulary_only=True) is VocabularyOnly


def test_an_encoder_reads_short_texts_together(tmp_path: Path) -> None:
    file = write_tiny_encoder(tmp_path / "encoder.gguf", gguf.PoolingType.MEAN)
    settings = WorkerSettings(safe_mode=True, threads=1)
    model = load(Load(model_id="tiny", path=str(file), settings=settings), lambda _: None)
    assert isinstance(model, EmbeddingModel)
    for longest, room in ((512, 1024), (2048, 2048)):
        embedder = model.open_embedder(longest)
        assert embedder.most_tokens == room
        embedder.close()


def test_a_vocabulary_alone_shows_prompts_of_any_length(path: Path) -> None:
    settings = WorkerSettings(safe_mode=True, threads=1)
    request = Load(model_id="tiny", path=str(path), settings=settings, vocabulary_only=True)
    text = "a" * 2 * CONTEXT
    rendered = render(
        load(request, lambda _: None), Render(id=1, prompt=TextPrompt(text=text))
    ).prompt
    assert rendered is not None
    assert rendered.prompt == text
    assert len(rendered.tokens) > CONTEXT


def test_nothing_is_decoded_while_templates_are_tried_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads of a decode wait for each other, and so for one that has to share its core."""
    running: list[threading.Thread] = []
    monkeypatch.setattr(
        load_module,
        "warm_up",
        lambda _: running.extend(each for each in threading.enumerate() if each.name == "trying"),
    )
    opened = opening._open_prompts

    def tried_out(*arguments: object) -> object:
        threading.current_thread().name = "trying"
        try:
            time.sleep(0.05)
            return opened(*arguments)  # type: ignore[arg-type]
        finally:
            threading.current_thread().name = "tried"

    monkeypatch.setattr(opening, "_open_prompts", tried_out)
    loaded(path)
    assert not running


def test_the_compiler_of_constraints_is_built_with_the_first_of_them(path: Path) -> None:
    compiler = loaded(path).compiler
    assert not compiler.is_built
    compiled = compiler.get()
    constraint = compiled.compile('{"grammars": [{"lark_grammar": "start: \\"a\\""}]}')
    assert not constraint.is_complete
    compiled.close()


@pytest.mark.parametrize(
    ("settings", "context", "kv_cells", "source"),
    [
        ({}, CONTEXT, CONTEXT, "what the model was trained with"),
        ({"ctx_size": 512}, 512, 512, "setting ctx_size"),
        ({"kv_tokens": 4096}, CONTEXT, 4096, "what the model was trained with"),
        ({"ctx_size": 512, "kv_tokens": 4096}, 512, 4096, "setting ctx_size"),
        (
            {"kv_tokens": 256},
            256,
            256,
            f"setting kv_tokens, which bounds what the model was trained with ({CONTEXT})",
        ),
        (
            {"ctx_size": 512, "kv_tokens": 256},
            256,
            256,
            "setting kv_tokens, which bounds setting ctx_size (512)",
        ),
    ],
)
def test_the_longest_request_and_what_bounds_it(
    path: Path, settings: dict[str, int], context: int, kv_cells: int, source: str
) -> None:
    info = loaded(path, **settings).info
    assert (info.context, info.kv_cells, info.context_source) == (context, kv_cells, source)


def test_memory_bounds_the_context_and_says_so(path: Path) -> None:
    whole, half = loaded(path).info.memory_bytes, loaded(path, ctx_size=512).info.memory_bytes
    assert whole is not None
    assert half is not None
    allowed = (whole + half) // 2
    info = loaded(path, memory_bytes=allowed).info
    assert 512 <= info.context < CONTEXT
    bound = f"memory, which bounds what the model was trained with ({CONTEXT})"
    assert info.context_source == bound
    assert info.memory_bytes is not None
    assert info.memory_bytes <= allowed
    with pytest.raises(LoadError, match="needs at least"):
        loaded(path, memory_bytes=1000)


def test_where_memory_bounds_the_context_of_sliding_windows_it_says_how_to_have_more(
    tmp_path: Path,
) -> None:
    path = write_tiny_model(tmp_path / "windows.gguf", "sliding window", window=16)

    def info(*, swa_full: bool, **settings: int) -> ModelInfo:
        few = {"ubatch_size": 64, "batch_size": 64}
        return loaded(path, swa_full=swa_full, **few, **settings).info

    allowed = info(swa_full=False).memory_bytes
    assert allowed is not None
    bounded = info(swa_full=True, memory_bytes=allowed)
    assert bounded.context < CONTEXT
    assert bounded.context_source.endswith(f"; swa_full = false makes room for {CONTEXT}")
    assert info(swa_full=False, memory_bytes=allowed).context == CONTEXT


def test_more_cells_are_found_where_fewer_would_take_more_memory(tmp_path: Path) -> None:
    """Up to 768 cells, windows would keep all, beside a store for prefixes."""
    path = write_tiny_model(tmp_path / "windows.gguf", "sliding window", window=160)
    allowed = loaded(path, swa_full=False, ubatch_size=64).info.memory_bytes
    assert allowed is not None
    fewer = loaded(path, swa_full=False, ubatch_size=64, ctx_size=768).info.memory_bytes
    assert fewer is not None
    assert fewer > allowed
    bounded = loaded(path, swa_full=False, ubatch_size=64, memory_bytes=allowed)
    assert bounded.info.context == CONTEXT


def test_sliding_windows_that_keep_few_cells_have_no_store(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "windows.gguf", "sliding window", window=16)
    full = loaded(path)
    short = loaded(path, swa_full=False, ubatch_size=64)
    long = loaded(path, swa_full=False, ubatch_size=CONTEXT, batch_size=CONTEXT)
    assert [model.context.partial_removal for model in (full, short, long)] == [True, False, True]
    assert [model.stored_tokens for model in (full, short, long)] == [256, 0, 256]


@pytest.mark.parametrize(
    ("there", "settings", "layers"),
    [(False, {}, 0), (True, {}, LAYERS), (True, {"gpu_layers": 2}, 2)],
)
def test_all_layers_go_to_a_gpu_where_there_is_one(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    settings: dict[str, int],
    layers: int,
) -> None:
    monkeypatch.setattr(layout, "gpu_available", lambda: there)
    assert loaded(path, **settings).info.gpu_layers == layers


@pytest.mark.parametrize(("there", "layers"), [(False, 2), (False, 0), (True, 2)])
def test_layers_for_a_gpu_that_the_build_has_not_are_warned_of(
    path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, layers: int
) -> None:
    monkeypatch.setattr(layout, "gpu_available", lambda: there)
    warnings = loaded(path, gpu_layers=layers).info.warnings
    assert any("gpu_layers has no effect" in each for each in warnings) == (layers and not there)

"""Embeddings over llama.cpp itself, on small random models; loaded in safe mode as any CPU can."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
from numpy.typing import NDArray

from server.engine.llama import LlamaEmbedder, LlamaModel
from tests.tiny_models import CONTEXT, EMBEDDING, MEMORY_TYPES, write_tiny_encoder, write_tiny_model

pytestmark = pytest.mark.process

KINDS = [*MEMORY_TYPES, "encoder"]
# One is longer than what is computed at once where a text is read in parts.
LENGTHS = (5, 300, 1, 77, 127, 128, 129)


def texts(*lengths: int) -> list[list[int]]:
    random = np.random.default_rng(7)
    return [[int(token) for token in random.integers(4, 250, length)] for length in lengths]


def write(path: Path, kind: str) -> Path:
    return write_tiny_encoder(path) if kind == "encoder" else write_tiny_model(path, kind)


def open_embedder(model: LlamaModel, most_tokens: int = 1024) -> LlamaEmbedder:
    return LlamaEmbedder(
        model, most_tokens=most_tokens, threads=1, flash_attention="off", kv_type="f32"
    )


@pytest.fixture(scope="module", params=KINDS)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaModel]:
    path = write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", request.param)
    loaded = LlamaModel(str(path), safe_mode=True)
    yield loaded
    loaded.close()


@pytest.fixture
def embedder(model: LlamaModel) -> Iterator[LlamaEmbedder]:
    opened = open_embedder(model)
    yield opened
    opened.close()


def test_a_text_gets_the_same_embedding_alone_and_among_others(embedder: LlamaEmbedder) -> None:
    together = embedder.embed(texts(*LENGTHS))
    alone = [embedder.embed([text])[0] for text in texts(*LENGTHS)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_embeddings_have_length_one_and_differ(embedder: LlamaEmbedder) -> None:
    vectors = embedder.embed(texts(*LENGTHS))
    assert vectors.shape == (len(LENGTHS), EMBEDDING)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosines = vectors @ vectors.T - np.eye(len(LENGTHS))
    assert cosines.max() < 0.9999


def test_a_call_leaves_nothing_behind(embedder: LlamaEmbedder) -> None:
    first, other = texts(40, 60)
    before = embedder.embed([first])
    embedder.embed([other])
    np.testing.assert_array_equal(embedder.embed([first]), before)


def test_the_mean_is_that_of_the_token_embeddings(
    model: LlamaModel, embedder: LlamaEmbedder
) -> None:
    (text,) = texts(100)
    rows = token_embeddings(model, text)
    expected = rows.mean(axis=0)
    np.testing.assert_allclose(
        embedder.embed([text])[0], expected / np.linalg.norm(expected), atol=1e-5
    )


@pytest.mark.parametrize(("pooling", "row"), [("CLS", 0), ("LAST", -1)])
def test_the_pooling_that_the_file_states_is_used(tmp_path: Path, pooling: str, row: int) -> None:
    path = write_tiny_encoder(tmp_path / "tiny.gguf", gguf.PoolingType[pooling])
    model = LlamaModel(str(path), safe_mode=True)
    embedder = open_embedder(model)
    (text,) = texts(30)
    expected = token_embeddings(model, text)[row]
    np.testing.assert_allclose(
        embedder.embed([text])[0], expected / np.linalg.norm(expected), atol=1e-5
    )
    embedder.close()
    model.close()


def test_only_an_encoder_cannot_be_read_in_parts(tmp_path: Path) -> None:
    for kind in KINDS:
        model = LlamaModel(str(write(tmp_path / "tiny.gguf", kind)), safe_mode=True)
        assert model.reads_in_parts == (kind != "encoder")
        assert model.is_supported
        model.close()


def test_what_llama_cpp_would_abort_on_is_refused_before(model: LlamaModel) -> None:
    embedder = open_embedder(model, most_tokens=256)
    for wrong in (texts(257), texts(128, 129), [[5], []], [[5]] * (embedder.most_texts + 1)):
        with pytest.raises(ValueError, match="limit 256"):
            embedder.embed(wrong)
    assert embedder.embed(texts(256)).shape == (1, EMBEDDING)
    embedder.close()


def test_a_text_of_an_encoder_is_no_longer_than_those_it_was_trained_on(tmp_path: Path) -> None:
    model = LlamaModel(str(write(tmp_path / "tiny.gguf", "encoder")), safe_mode=True)
    embedder = open_embedder(model, most_tokens=2 * CONTEXT)
    assert embedder.embed(texts(CONTEXT, CONTEXT)).shape == (2, EMBEDDING)
    with pytest.raises(ValueError, match=f"a text of {CONTEXT + 1} tokens, limit {CONTEXT}"):
        embedder.embed(texts(CONTEXT + 1))
    embedder.close()
    model.close()


@pytest.mark.parametrize("most_tokens", [1, 15, 63])
def test_there_may_be_room_for_fewer_tokens_than_texts(model: LlamaModel, most_tokens: int) -> None:
    embedder = open_embedder(model, most_tokens)
    assert embedder.most_texts <= most_tokens
    assert embedder.embed(texts(*[1] * embedder.most_texts)).shape[0] == embedder.most_texts
    assert embedder.embed(texts(most_tokens)).shape == (1, EMBEDDING)
    embedder.close()


def token_embeddings(model: LlamaModel, text: list[int]) -> NDArray[np.float64]:
    """What llama.cpp computes for each token of a text in one go, shape (tokens, EMBEDDING)."""
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
    parameters.embeddings = True
    parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
    parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F32
    parameters.flash_attn_type = 0
    context = llama_cpp.llama_init_from_model(model.pointer, parameters)
    tokens = (ctypes.c_int32 * len(text))(*text)
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(text))) == 0
    rows = [
        np.ctypeslib.as_array(llama_cpp.llama_get_embeddings_ith(context, index), (EMBEDDING,))
        for index in range(len(text))
    ]
    embeddings = np.array(rows, dtype=np.float64)
    llama_cpp.llama_free(context)
    return embeddings

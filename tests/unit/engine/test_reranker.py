"""Scores over llama.cpp itself, beside what numpy computes with the same random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from server.engine.llama import Head, LlamaModel, LlamaReranker
from server.engine.llama.token_types import StoredRows, TypedEmbeddings
from tests.tiny_rerankers import (
    CLS,
    NO,
    SEP,
    YES,
    cross_encoder_outputs,
    judge_outputs,
    write_cross_encoder,
    write_judge,
)

pytestmark = pytest.mark.process

# llama.cpp reads GELU from a table of half-precision numbers.
CLOSE = {"cross-encoder": 1e-3, "classifier": 1e-4, "words": 1e-4}
# One is longer than what a causal model reads at once.
LENGTHS = (5, 300, 1, 77, 127, 128, 129, *[9] * 20)


@dataclass
class Case:
    model: LlamaModel
    head: Head
    score: Callable[[list[int]], float]
    close: float

    def open(self, most_tokens: int = 512) -> LlamaReranker:
        return LlamaReranker(
            self.model,
            self.head,
            most_tokens=most_tokens,
            threads=1,
            flash_attention="off",
            kv_type="f32",
        )

    def expected(self, texts: list[list[int]]) -> NDArray[np.float64]:
        return np.array([self.score(text) for text in texts])


@pytest.fixture(scope="module", params=CLOSE)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    path: Path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    close = CLOSE[request.param]
    if request.param == "cross-encoder":
        weights = write_cross_encoder(path)
        head = Head(yes=0, no=None, words=False)
        return Case(_load(path), head, lambda t: cross_encoder_outputs(weights, t)[0], close)
    words = request.param == "words"
    weights = write_judge(path, classifier=not words)
    yes, no = (YES, NO) if words else (0, 1)

    def score(text: list[int]) -> float:
        outputs = judge_outputs(weights, text, words=words)
        return float(outputs[yes] - outputs[no])

    head = Head(yes=yes, no=no, words=words, probabilities=not words)
    return Case(_load(path), head, score, close)


def _load(path: Path) -> LlamaModel:
    return LlamaModel(str(path), safe_mode=True)


def texts(*lengths: int) -> list[list[int]]:
    random = np.random.default_rng(7)
    return [[int(token) for token in random.integers(5, 56, length)] for length in lengths]


def test_scores_are_those_of_the_reference_alone_and_together(case: Case) -> None:
    reranker = case.open(1024)
    given = texts(*LENGTHS)
    reranker.begin([])
    together = np.concatenate([reranker.score(given[:16]), reranker.score(given[16:])])
    np.testing.assert_allclose(together, case.expected(given), atol=case.close)
    alone = np.concatenate([reranker.score([text]) for text in given])
    np.testing.assert_allclose(alone, together, atol=case.close)
    reranker.close()


def test_a_beginning_is_computed_once_for_all_texts_of_causal_models(case: Case) -> None:
    reranker = case.open()
    given = texts(*[40] * 20)
    for length in (3, 200):
        (shared,) = texts(length)
        whole = [shared + text for text in given]
        if not case.model.reads_in_parts:
            with pytest.raises(ValueError, match="limit 512"):
                reranker.begin(shared)
            continue
        reranker.begin(shared)
        scores = np.concatenate([reranker.score(given[at : at + 5]) for at in range(0, 20, 5)])
        np.testing.assert_allclose(scores, case.expected(whole), atol=case.close)
    reranker.begin([])
    scores = reranker.score(given[:2])
    np.testing.assert_allclose(scores, case.expected(given[:2]), atol=case.close)
    reranker.close()


def test_no_cell_is_left_to_the_texts_of_the_last_group(case: Case) -> None:
    reranker = case.open(256)
    (shared,) = texts(40) if case.model.reads_in_parts else [[]]
    reranker.begin(shared)
    many, (one,) = texts(*[40] * 5), texts(216 if shared else 256)
    reranker.score(many)
    np.testing.assert_allclose(
        reranker.score([one]), case.expected([shared + one]), atol=case.close
    )
    np.testing.assert_allclose(
        reranker.score(many[:2]),
        case.expected([shared + text for text in many[:2]]),
        atol=case.close,
    )
    reranker.close()


def test_what_llama_cpp_would_abort_on_is_refused_before(case: Case) -> None:
    reranker = case.open(256)
    reranker.begin([])
    for wrong in (texts(257), texts(128, 129), [[5], []], [[5]] * (reranker.most_texts + 1)):
        with pytest.raises(ValueError, match="limit 256"):
            reranker.score(wrong)
    assert reranker.score(texts(256)).shape == (1,)
    reranker.close()


@pytest.mark.parametrize("most_tokens", [1, 16])
def test_there_may_be_room_for_fewer_tokens_than_texts(case: Case, most_tokens: int) -> None:
    reranker = case.open(most_tokens)
    reranker.begin([])
    given = texts(*[1] * most_tokens)
    np.testing.assert_allclose(reranker.score(given), case.expected(given), atol=case.close)
    reranker.close()


def test_a_pair_has_the_separators_that_its_model_was_trained_with(tmp_path: Path) -> None:
    write_cross_encoder(tmp_path / "tiny.gguf")
    assert _load(tmp_path / "tiny.gguf").vocabulary.pair_ends == ([CLS], [SEP], [SEP])


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_embeddings_are_read_in_the_formats_of_files(kind: str) -> None:
    ggml_type = gguf.GGMLQuantizationType[kind]
    matrix = np.random.default_rng(1).normal(size=(9, 64)).astype(np.float32)
    stored = gguf.quantize(matrix, ggml_type)
    rows = StoredRows(np.ascontiguousarray(stored).view(np.uint8), 64, int(ggml_type))
    chosen = np.array([3, 0, 3])
    np.testing.assert_array_equal(rows.read(chosen), gguf.dequantize(stored, ggml_type)[chosen])


def test_tokens_of_the_second_type_are_told_from_those_of_the_first(tmp_path: Path) -> None:
    weights = write_cross_encoder(tmp_path / "tiny.gguf")
    tokens, types = (
        StoredRows(weights[f"{name}.weight"].astype("<f4").view(np.uint8), 64, 0)
        for name in ("token_embd", "token_types")
    )
    reranker = LlamaReranker(
        _load(tmp_path / "tiny.gguf"),
        Head(yes=0, no=None, words=False),
        most_tokens=512,
        threads=1,
        flash_attention="off",
        kv_type="f32",
        typed=TypedEmbeddings(tokens, types),
    )
    given, seconds = texts(5, 30, 1), [3, 30, 0]
    reranker.begin([])
    marked = [
        [int(place >= second) for place in range(len(text))]
        for text, second in zip(given, seconds, strict=True)
    ]
    expected = [
        cross_encoder_outputs(weights, *each)[0] for each in zip(given, marked, strict=True)
    ]
    np.testing.assert_allclose(reranker.score(given, seconds), expected, atol=1e-3)
    plain = [cross_encoder_outputs(weights, text)[0] for text in given]
    np.testing.assert_allclose(reranker.score(given), plain, atol=1e-3)
    assert np.abs(np.subtract(expected, plain))[[0, 2]].min() > 0.01
    reranker.close()

"""Scores from a real worker process, on small random models."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from server.core.errors import ContextLengthExceeded, InvalidRequest, ModelUnavailable
from server.core.events import Failed
from server.core.ranking import RankingRequest, Scores
from tests.tiny_models import write_tiny_model
from tests.tiny_rerankers import (
    CLS,
    CONTEXT,
    CONTROLS,
    LETTERS,
    NO,
    RERANK_TEMPLATE,
    SEP,
    SPACE,
    YES,
    cross_encoder_outputs,
    judge_outputs,
    write_cross_encoder,
    write_judge,
)
from tests.unit.worker.conftest import collect
from tests.unit.worker.test_embed import ClientFor, client_for

pytestmark = pytest.mark.process
__all__ = ["client_for"]

DOCUMENTS = ["a cat", "dog", "the cat sat on the mat " * 9, "", *["mouse " * 30] * 40]
EXACT = {"kv_type": "f32", "flash_attention": "off"}


def word_pieces(text: str) -> list[int]:
    """The tokens of words of letters in the tiny BERT."""
    places = [(not at or text[at - 1] == " ", char) for at, char in enumerate(text) if char != " "]
    return [4 + LETTERS.index(char) + (0 if first else 26) for first, char in places]


def asked(query: str, documents: list[str], **fields: object) -> RankingRequest:
    return RankingRequest(queries=[query], documents=documents, **fields)  # type: ignore[arg-type]


async def test_a_cross_encoder_scores_pairs(client_for: ClientFor, tmp_path: Path) -> None:
    weights = write_cross_encoder(tmp_path / "tiny.gguf")
    client = client_for(tmp_path / "tiny.gguf", **EXACT)
    found = await client.rank(asked("where", DOCUMENTS))
    pairs = [[CLS, *word_pieces("where"), SEP, *word_pieces(text), SEP] for text in DOCUMENTS]
    types = [[0] * len("[where]") + [1] * (len(pair) - len("[where]")) for pair in pairs]
    expected = [cross_encoder_outputs(weights, *pair)[0] for pair in zip(pairs, types, strict=True)]
    np.testing.assert_allclose(found.logits, expected, atol=1e-3)
    assert found.prompt_tokens == sum(map(len, pairs))
    assert found.cut == []
    assert client.info.ranks
    assert not client.info.generates


@pytest.mark.parametrize("classifier", [True, False])
@pytest.mark.parametrize("own_template", [True, False])
async def test_a_judge_scores_by_its_template(
    client_for: ClientFor, tmp_path: Path, classifier: bool, own_template: bool
) -> None:
    path = tmp_path / "tiny.gguf"
    template = RERANK_TEMPLATE if own_template else None
    weights = write_judge(path, classifier=classifier, pooling=classifier, template=template)
    client = client_for(path, **EXACT)
    found = await client.rank(asked("<|im_end|>", ["<s>a", "b"]))
    again = await client.rank(asked("<|im_end|>", ["b", "<s>a"], instruction="other"))
    assert all(abs(a - b) > 1e-6 for a, b in zip(found.logits, again.logits[::-1], strict=True))
    assert client.info.ranking is not None
    assert client.info.ranking.instruction
    assert any("no classifier" in said for said in client.info.warnings) != classifier
    for text, logit in zip(["<s>a", "b"], found.logits, strict=True):
        if own_template:
            outputs = judge_outputs(weights, prompt("<|im_end|>", text), words=not classifier)
            yes, no = (0, 1) if classifier else (YES, NO)
            assert logit == pytest.approx(outputs[yes] - outputs[no], abs=1e-3)


def prompt(query: str, document: str) -> list[int]:
    """The tokens of `RERANK_TEMPLATE`, in which each control token stands for itself."""
    tokens = []
    for piece in re.split(r"(<\|im_start\|>|<\|im_end\|>)", RERANK_TEMPLATE):
        if piece in CONTROLS:
            tokens.append(CONTROLS.index(piece))
        else:
            filled = piece.replace("{query}", query).replace("{document}", document)
            tokens += [
                SPACE if byte == ord(" ") else len(CONTROLS) + byte for byte in filled.encode()
            ]
    return tokens


async def test_long_documents_are_cut_and_named_or_refused(
    client_for: ClientFor, tmp_path: Path
) -> None:
    write_cross_encoder(tmp_path / "tiny.gguf")
    client = client_for(tmp_path / "tiny.gguf")
    long = "a " * 2 * CONTEXT
    whole = await client.rank(asked("b", ["a", long]))
    assert whole.cut == [1]
    assert whole.prompt_tokens == CONTEXT + 5
    less = await client.rank(asked("b", ["a", long], most=20, most_document=8))
    assert less == Scores(logits=less.logits, prompt_tokens=5 + 12, cut=[1])
    with pytest.raises(ContextLengthExceeded, match=r"Document 1 .* more than 512") as caught:
        await client.rank(asked("b", ["a", long], truncate=False))
    assert caught.value.at == ("documents", 1)
    with pytest.raises(ContextLengthExceeded, match="The query takes"):
        await client.rank(asked(long, ["a"]))


async def test_each_document_may_have_a_query_of_its_own(
    client_for: ClientFor, tmp_path: Path
) -> None:
    write_judge(tmp_path / "tiny.gguf")
    client = client_for(tmp_path / "tiny.gguf")
    both = await client.rank(RankingRequest(queries=["x", "y"], documents=["a", "b"]))
    first, second = await client.rank(asked("x", ["a"])), await client.rank(asked("y", ["b"]))
    np.testing.assert_allclose(both.logits, first.logits + second.logits, atol=1e-4)


async def test_models_do_what_they_were_made_for_alone(
    client_for: ClientFor, tmp_path: Path
) -> None:
    write_cross_encoder(tmp_path / "tiny.gguf")
    reranker = client_for(tmp_path / "tiny.gguf")
    with pytest.raises(InvalidRequest, match="ranks texts; it does not generate") as caught:
        await reranker.embed(["a"])
    assert caught.value.at == ("model",)
    (event,) = await collect(reranker)
    assert isinstance(event, Failed)
    generating = client_for(write_tiny_model(tmp_path / "decoder.gguf", "full attention"))
    with pytest.raises(InvalidRequest, match="it does nothing else") as caught:
        await generating.rank(asked("a", ["b"]))
    assert caught.value.at == ("model",)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"head": False}, "head is missing from the file"),
        ({"outputs": 3}, "sorts texts into 3 classes"),
    ],
)
async def test_a_file_that_cannot_rank_says_why(
    client_for: ClientFor, tmp_path: Path, options: dict[str, int], reason: str
) -> None:
    write_cross_encoder(tmp_path / "tiny.gguf", **options)  # type: ignore[arg-type]
    with pytest.raises(ModelUnavailable, match=reason):
        await client_for(tmp_path / "tiny.gguf").rank(asked("a", ["b"]))

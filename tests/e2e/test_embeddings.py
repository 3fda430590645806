"""Embeddings of a real model, through OpenAI's own client."""

from __future__ import annotations

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from openai import OpenAI

from tests.e2e.server import INSTRUCT, Server

TEXTS = [
    "The cat lies in the sun.",
    "A kitten is sleeping in the warm light.",
    "The central bank raised its interest rates by half a percent.",
]


def matrix(answer: openai.types.CreateEmbeddingResponse) -> NDArray[np.float64]:
    return np.array([item.embedding for item in answer.data])


def test_related_texts_are_nearer_and_both_formats_agree(client: OpenAI) -> None:
    floats = client.embeddings.create(model=INSTRUCT, input=TEXTS, encoding_format="float")
    base64 = client.embeddings.create(model=INSTRUCT, input=TEXTS)
    vectors = matrix(floats)
    np.testing.assert_array_equal(vectors, matrix(base64))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2]
    assert floats.usage.prompt_tokens == floats.usage.total_tokens > 3 * 5


def test_dimensions_cut_and_restore_the_length(client: OpenAI) -> None:
    whole = matrix(client.embeddings.create(model=INSTRUCT, input=TEXTS))
    cut = matrix(client.embeddings.create(model=INSTRUCT, input=TEXTS, dimensions=64))
    expected = whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)
    with pytest.raises(openai.BadRequestError) as refusal:
        client.embeddings.create(model=INSTRUCT, input="a", dimensions=100_000)
    assert refusal.value.param == "dimensions"


def test_too_long_a_text_is_refused_with_both_counts(client: OpenAI, server: Server) -> None:
    facts = httpx.get(f"{server.url}/v1/models/{INSTRUCT}").json()["embedding"]
    tokens = [[1] * (facts["context"] + 1)]
    with pytest.raises(openai.BadRequestError) as refusal:
        client.embeddings.create(model=INSTRUCT, input=tokens)
    assert refusal.value.code == "context_length_exceeded"
    assert str(facts["context"]) in refusal.value.message
    assert str(facts["context"] + 1) in refusal.value.message

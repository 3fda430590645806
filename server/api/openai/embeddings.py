"""``POST /v1/embeddings``."""

from __future__ import annotations

import asyncio
import base64
import logging
import sys
from array import array

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.endpoint import described_body, located, read
from server.api.ignored_names import ignored_header, unknown_names
from server.api.openai.embedding_texts import reading_of, without_effect
from server.api.openai.errors import locate
from server.api.openai.schemas.embeddings import EmbeddingList, EmbeddingRequest
from server.api.truncated import truncated_header
from server.core.embeddings import Embeddings
from server.http.disconnect import unless_gone

router = APIRouter()

_contents_log = logging.getLogger("dragoman.contents")


@router.post(
    "/v1/embeddings", response_model=EmbeddingList, openapi_extra=described_body(EmbeddingRequest)
)
async def create_embeddings(request: Request) -> Response:
    """Embed one or more inputs."""
    shared = context(request)
    body = await read(request, EmbeddingRequest)
    inputs, reading = _inputs(body), reading_of(body)
    client = await unless_gone(request, shared.open(body.model))
    model = client.info.model_id
    if shared.settings.log_contents:
        _contents_log.info("%s inputs: %s", model, inputs)
    with located(locate):
        asked = client.embed(inputs, dimensions=body.dimensions, reading=reading)
        embeddings = await unless_gone(request, asked)
    shared.metrics.read(model, embeddings.prompt_tokens)
    # Thousands of inputs make a million numbers.
    content = await asyncio.to_thread(_answer, embeddings, len(inputs), model, body)
    user = ["user"] if body.user is not None else []
    names = [*user, *unknown_names(body), *without_effect(body, reading, client.info)]
    headers = {**ignored_header(names), **truncated_header("input", embeddings.cut)}
    return Response(content, media_type="application/json", headers=headers)


def _inputs(body: EmbeddingRequest) -> list[str | list[int]]:
    if isinstance(body.input, str):
        return [body.input]
    # An array of integers is one input.
    ids = [token for token in body.input if isinstance(token, int)]
    return [ids] if ids else [given for given in body.input if not isinstance(given, int)]


def _answer(embeddings: Embeddings, count: int, model: str, body: EmbeddingRequest) -> bytes:
    """The JSON of an `EmbeddingList`; pydantic would validate it number by number."""
    size = len(embeddings.vectors) // count
    vectors = (embeddings.vectors[at : at + size] for at in range(0, len(embeddings.vectors), size))
    encode = _base64 if body.encoding_format == "base64" else _floats
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": encode(vector)}
                for index, vector in enumerate(vectors)
            ],
            "model": model,
            "usage": {
                "prompt_tokens": embeddings.prompt_tokens,
                "total_tokens": embeddings.prompt_tokens,
            },
        }
    )


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _floats(vector: bytes) -> list[float]:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()

"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.native import openapi
from server.api.openai import parameters as convert
from server.api.openai.chat_reply import ChatReply, fold
from server.api.openai.conversation import chat_prompt, prediction
from server.api.openai.schemas.chat_request import ChatCompletionRequest
from server.api.openai.schemas.chat_response import ChatCompletion, ChatCompletionChunk
from server.api.replies import events
from server.api.streams import admitted, merge, unless_gone
from server.core.errors import InvalidRequest, UnsupportedParameter
from server.core.events import Event
from server.core.model_info import ModelInfo
from server.core.request import CacheScope, GenerationRequest
from server.http.body import read
from server.http.sse import stream, to_json

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    openapi_extra=openapi.body(ChatCompletionRequest),
)
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation, whole or as a stream of events."""
    shared = context(request)
    body = await read(request, ChatCompletionRequest, shared.settings)
    include_usage = convert.include_usage(body)
    draft = _draft(body)

    async def begin() -> tuple[ChatReply, AsyncGenerator[tuple[int, Event]]]:
        client = await shared.pool.open(body.model)
        generation = convert.for_model(draft, body)
        scope = CacheScope(api_key=request.state.cache_scope)
        reply = ChatReply(client.info, generation, include_usage=include_usage or not body.stream)
        return reply, merge([events(shared, client, generation, scope)], at_once=1)

    async def begin_stream() -> tuple[ModelInfo, AsyncGenerator[ChatCompletionChunk]]:
        reply, generated = await begin()
        return reply.info, reply.chunks(await admitted(generated, prompts=1))

    headers = partial(convert.ignored_header, body)
    if body.stream:
        return await stream(request, begin_stream(), shared.settings.ping_seconds, headers)
    reply, generated = await unless_gone(request, begin())
    async with aclosing(reply.chunks(generated)) as chunks:
        answer = await unless_gone(request, fold(chunks))
    return Response(to_json(answer), media_type="application/json", headers=headers(reply.info))


def _draft(body: ChatCompletionRequest) -> GenerationRequest:
    """Everything of the request that needs no knowledge of the model; checked before it loads."""
    if "audio" in (body.modalities or []):
        raise UnsupportedParameter("modalities: audio is not supported.", at=("modalities",))
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", at=("top_logprobs",))
    return GenerationRequest(
        prompt=chat_prompt(body),
        max_tokens=_max_tokens(body),
        stop=convert.stops(body),
        n=body.n or 1,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        constraint=convert.constraint(body),
        prediction=prediction(body),
        ignore_eos=bool(body.ignore_eos),
    )


def _max_tokens(body: ChatCompletionRequest) -> int | None:
    if body.max_tokens is None or body.max_completion_tokens is None:
        return body.max_completion_tokens or body.max_tokens
    if body.max_tokens != body.max_completion_tokens:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens differ.", at=("max_completion_tokens",)
        )
    return body.max_tokens

"""``POST /v1/completions``: native prompts, and the scoring that evaluators use."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.native import openapi
from server.api.openai import parameters as convert
from server.api.openai.completion_reply import CompletionReply, fold
from server.api.openai.schemas.completions import DEFAULT_MAX_TOKENS, Completion, CompletionRequest
from server.api.replies import events
from server.api.streams import admitted, merge, unless_gone
from server.core.errors import InvalidRequest
from server.core.events import Event
from server.core.model_info import ModelInfo
from server.core.request import CacheScope, GenerationRequest, TextPrompt, TokensPrompt
from server.http.body import read
from server.http.sse import stream, to_json

router = APIRouter()

# How many prompts of one request are with the model at a time, so that a large batch does not fill
# the queue for everybody else.
PROMPTS_AT_ONCE = 32


@router.post(
    "/v1/completions", response_model=Completion, openapi_extra=openapi.body(CompletionRequest)
)
async def create_completion(request: Request) -> Response:
    """Continue one or more prompts, whole or as a stream of events."""
    shared = context(request)
    body = await read(request, CompletionRequest, shared.settings)
    include_usage = convert.include_usage(body)
    wanted = body.n or 1
    candidates = _candidates(body, wanted)
    drafts = [_draft(body, prompt, candidates) for prompt in _prompts(body)]

    async def begin() -> tuple[CompletionReply, AsyncGenerator[tuple[int, Event]]]:
        client = await shared.pool.open(body.model)
        scope = CacheScope(api_key=request.state.cache_scope)
        generations = [convert.for_model(draft, body) for draft in drafts]
        reply = CompletionReply(
            client.info,
            answers=candidates,
            logprobs=body.logprobs is not None or candidates > wanted,
            include_usage=include_usage or not body.stream,
        )
        generated = [events(shared, client, generation, scope) for generation in generations]
        return reply, merge(generated, at_once=PROMPTS_AT_ONCE)

    async def begin_stream() -> tuple[ModelInfo, AsyncGenerator[Completion]]:
        reply, generated = await begin()
        first = min(len(drafts), PROMPTS_AT_ONCE)
        return reply.info, reply.chunks(await admitted(generated, prompts=first))

    headers = partial(convert.ignored_header, body)
    if body.stream:
        return await stream(request, begin_stream(), shared.settings.ping_seconds, headers)
    reply, generated = await unless_gone(request, begin())
    async with aclosing(reply.chunks(generated)) as chunks:
        answer = await unless_gone(request, fold(chunks, candidates=candidates, wanted=wanted))
    if body.logprobs is None:
        answer = _without_logprobs(answer)
    return Response(to_json(answer), media_type="application/json", headers=headers(reply.info))


def _candidates(body: CompletionRequest, wanted: int) -> int:
    """How many answers to generate per prompt; raises InvalidRequest for a wrong ``best_of``."""
    candidates = body.best_of or wanted
    if candidates < wanted:
        raise InvalidRequest("best_of must not be less than n.", at=("best_of",))
    if candidates > wanted and body.stream:
        raise InvalidRequest("best_of cannot be streamed.", at=("best_of",))
    return candidates


def _prompts(body: CompletionRequest) -> list[TextPrompt | TokensPrompt]:
    if body.prompt is None or isinstance(body.prompt, str):
        return [TextPrompt(text=body.prompt or "", suffix=body.suffix)]
    if body.suffix is not None and not isinstance(body.prompt[0], str):
        raise InvalidRequest("suffix needs a prompt that is text.", at=("suffix",))
    prompts: list[TextPrompt | TokensPrompt] = []
    for prompt in body.prompt:
        match prompt:
            case str():
                prompts.append(TextPrompt(text=prompt, suffix=body.suffix))
            case list():
                prompts.append(TokensPrompt(ids=prompt))
    # An array of integers is one prompt.
    ids = [token for token in body.prompt if isinstance(token, int)]
    return prompts or [TokensPrompt(ids=ids)]


def _draft(
    body: CompletionRequest, prompt: TextPrompt | TokensPrompt, candidates: int
) -> GenerationRequest:
    """Everything of the request that needs no knowledge of the model; checked before it loads."""
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not body.echo:
        raise InvalidRequest("max_tokens may be 0 only with echo.", at=("max_tokens",))
    if body.echo and body.suffix is not None:
        raise InvalidRequest("echo and suffix exclude each other.", at=("suffix",))
    # Candidates are ranked by their logprobs.
    logprobs = 0 if body.logprobs is None and candidates > (body.n or 1) else body.logprobs
    return GenerationRequest(
        prompt=prompt,
        max_tokens=max_tokens,
        stop=convert.stops(body),
        n=candidates,
        logprobs=logprobs,
        echo=bool(body.echo),
        constraint=convert.constraint(body),
        ignore_eos=bool(body.ignore_eos),
    )


def _without_logprobs(answer: Completion) -> Completion:
    choices = [choice.model_copy(update={"logprobs": None}) for choice in answer.choices]
    return answer.model_copy(update={"choices": choices})

"""``POST /v1/completions``: native prompts, and the scoring that evaluators use."""

from __future__ import annotations

from functools import partial

from server.api.constraint_fields import constraint_place, schema_place
from server.api.family import Operation, ParsedRequest
from server.api.openai import parameters
from server.api.openai.completion_encoder import Candidates, CompletionEncoder
from server.api.openai.errors import locate
from server.api.openai.parameters import CommonParameters
from server.api.openai.schemas.completions import (
    DEFAULT_MAX_TOKENS,
    Completion,
    CompletionRequest,
)
from server.api.prompt_places import PROMPTS
from server.core.errors import InvalidRequest, Locator
from server.core.request import GenerationRequest, TextPrompt, TokensPrompt


def parse(body: CompletionRequest) -> ParsedRequest:
    """The body as one canonical request for each of its prompts.

    Raises InvalidRequest where fields contradict each other.
    """
    common = parameters.common(body, max_tokens=_max_tokens(body))
    candidates = _candidates(body)
    requests = [_request(body, prompt, candidates, common) for prompt in _prompts(body)]
    return ParsedRequest(
        model=body.model,
        requests=requests,
        stream=bool(body.stream),
        encoder=partial(
            CompletionEncoder,
            candidates=candidates,
            logprobs=body.logprobs is not None,
            include_usage=common.include_usage,
        ),
        locate=partial(_locate, body=body, request=requests[0]),
        headers=partial(parameters.answer_headers, body, body.ignored()),
    )


def _locate(at: Locator, *, body: CompletionRequest, request: GenerationRequest) -> Locator:
    """Where in the body the canonical place ``at`` was stated."""
    if at[:1] == (PROMPTS,):
        return ("prompt", *at[1:])
    if at[:1] == ("prompt",):
        # A list of one prompt, unless its items are the prompt's tokens.
        one = isinstance(body.prompt, list) and not isinstance(body.prompt[0], int)
        return ("prompt", 0, *at[1:]) if one else at
    constraint, schema = constraint_place(body), schema_place(body)
    return body.place(locate(at, request, constraint=constraint, schema=schema))


def _candidates(body: CompletionRequest) -> Candidates:
    """How many answers to generate per prompt; raises InvalidRequest for a wrong ``best_of``."""
    wanted = body.n or 1
    generated = body.best_of or wanted
    if generated < wanted:
        raise InvalidRequest("best_of must not be less than n.", at=("best_of",))
    if generated > wanted and body.stream:
        raise InvalidRequest("best_of cannot be streamed.", at=("best_of",))
    return Candidates(generated=generated, wanted=wanted)


def _prompts(body: CompletionRequest) -> list[TextPrompt | TokensPrompt]:
    if body.prompt is None or isinstance(body.prompt, str):
        return [TextPrompt(text=body.prompt or "", suffix=body.suffix or None)]
    if body.suffix and not isinstance(body.prompt[0], str):
        raise InvalidRequest("suffix needs a prompt that is text.", at=("suffix",))
    prompts: list[TextPrompt | TokensPrompt] = []
    for prompt in body.prompt:
        match prompt:
            case str():
                prompts.append(TextPrompt(text=prompt, suffix=body.suffix or None))
            case list():
                prompts.append(TokensPrompt(ids=prompt))
    # An array of integers is one prompt.
    ids = [token for token in body.prompt if isinstance(token, int)]
    return prompts or [TokensPrompt(ids=ids)]


def _max_tokens(body: CompletionRequest) -> int:
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not body.echo:
        raise InvalidRequest("max_tokens may be 0 only with echo.", at=("max_tokens",))
    return max_tokens


def _request(
    body: CompletionRequest,
    prompt: TextPrompt | TokensPrompt,
    candidates: Candidates,
    common: CommonParameters,
) -> GenerationRequest:
    if body.echo and body.suffix:
        raise InvalidRequest("echo and suffix exclude each other.", at=("suffix",))
    # Candidates are ranked by their logprobs.
    ranked = candidates.generated > candidates.wanted
    return GenerationRequest(
        prompt=prompt,
        sampling=common.sampling,
        max_tokens=common.max_tokens,
        min_tokens=common.min_tokens,
        stop=common.stop,
        stop_token_ids=common.stop_token_ids,
        n=candidates.generated,
        logprobs=0 if body.logprobs is None and ranked else body.logprobs,
        echo=bool(body.echo),
        constraint=common.constraint,
        ignore_eos=common.ignore_eos,
        adapters=body.adapters(),
    )


COMPLETIONS = Operation(
    path="/v1/completions",
    summary="Continue one or more prompts, whole or as a stream of events.",
    body=CompletionRequest,
    answer=Completion,
    parse=parse,
)

"""``POST /v1/chat/completions``: from its body to the canonical request."""

from __future__ import annotations

from functools import partial

from server.api.constraint_fields import constraint_place, schema_place
from server.api.family import Operation, ParsedRequest
from server.api.generation_fields import reasoning_budget
from server.api.openai import parameters
from server.api.openai.chat_encoder import ChatEncoder
from server.api.openai.chat_tools import offered_tools
from server.api.openai.conversation import chat_prompt, wire_place
from server.api.openai.errors import locate
from server.api.openai.schemas.chat_request import (
    ChatCompletionRequest,
)
from server.api.openai.schemas.chat_response import ChatCompletion
from server.core.errors import InvalidRequest, Locator, UnsupportedParameter, path_text
from server.core.request import GenerationRequest


def parse(body: ChatCompletionRequest) -> ParsedRequest:
    """The body as one canonical request.

    Raises UnsupportedParameter or InvalidRequest where fields cannot be served or contradict each
    other.
    """
    common = parameters.common(body, max_tokens=_max_tokens(body))
    if "audio" in (body.modalities or []):
        raise UnsupportedParameter("modalities: audio is not supported.", at=("modalities",))
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", at=("top_logprobs",))
    request = GenerationRequest(
        prompt=chat_prompt(body),
        sampling=common.sampling,
        max_tokens=common.max_tokens,
        min_tokens=common.min_tokens,
        stop=common.stop,
        stop_token_ids=common.stop_token_ids,
        reasoning_budget=reasoning_budget(body.reasoning_budget),
        n=body.n or 1,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        constraint=common.constraint,
        prediction=_prediction(body),
        ignore_eos=common.ignore_eos,
        adapters=body.adapters(),
    )
    place = partial(_locate, body=body, request=request)
    return ParsedRequest(
        model=body.model,
        requests=[request],
        stream=bool(body.stream),
        encoder=partial(
            ChatEncoder,
            include_usage=common.include_usage,
            old_calls=body.functions is not None,
            locate=place,
        ),
        locate=place,
        headers=partial(parameters.answer_headers, body, body.ignored()),
    )


def _prediction(body: ChatCompletionRequest) -> str | None:
    """The text that the answer probably repeats."""
    if body.prediction is None:
        return None
    content = body.prediction.content
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _locate(at: Locator, *, body: ChatCompletionRequest, request: GenerationRequest) -> Locator:
    """Where in the body the canonical place ``at`` was stated."""
    match at:
        case ("tools", int(index), *rest):
            at = (*offered_tools(body).places[index], *rest)
        case ("messages", *_):
            at = wire_place(body.messages, at)
    constraint, schema = constraint_place(body), schema_place(body)
    return body.place(locate(at, request, constraint=constraint, schema=schema))


def _max_tokens(body: ChatCompletionRequest) -> int | None:
    if body.max_tokens is None or body.max_completion_tokens is None:
        return body.max_completion_tokens or body.max_tokens
    if body.max_tokens != body.max_completion_tokens:
        places = [body.place((name,)) for name in ("max_tokens", "max_completion_tokens")]
        names = " and ".join(map(path_text, places))
        raise InvalidRequest(f"{names} differ.", at=places[1])
    return body.max_tokens


CHAT_COMPLETIONS = Operation(
    path="/v1/chat/completions",
    summary="Answer a conversation, whole or as a stream of events.",
    body=ChatCompletionRequest,
    answer=ChatCompletion,
    parse=parse,
)

"""``POST /infill``: the text that fits into a gap, with llama.cpp's server's body and answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.constraint_fields import constraint_place, schema_place
from server.api.context import context
from server.api.endpoint import answered, described_body, read
from server.api.family import Frame, ParsedRequest
from server.api.openai import parameters
from server.api.openai.errors import locate
from server.api.openai.schemas.infill import ExtraFile, Infill, InfillRequest
from server.api.unnamed_model import unnamed_model
from server.core.errors import Locator
from server.core.events import Usage
from server.core.model_info import ModelInfo
from server.core.reply import (
    AnswerFinished,
    AnswerFinishReason,
    AnswerStarted,
    ContentDelta,
    Reply,
    ReplyEvent,
)
from server.core.request import GenerationRequest, SourceFile, TextPrompt

_UNNAMED = "snippet"

router = APIRouter()


@router.post("/infill", response_model=Infill, openapi_extra=described_body(InfillRequest))
async def infill(request: Request) -> Response:
    """Fill the gap between two texts, whole or as a stream of events."""
    body = await read(request, InfillRequest)
    pool = context(request).pool
    model = body.model or unnamed_model(pool, "generates", lambda known: known.generates)
    common = parameters.common(body, max_tokens=body.max_tokens)
    wanted = GenerationRequest(
        prompt=TextPrompt(
            text=body.input_prefix + (body.prompt or ""),
            suffix=body.input_suffix,
            files=[_file(extra) for extra in body.input_extra or []],
            literal=True,
        ),
        sampling=common.sampling,
        max_tokens=common.max_tokens,
        min_tokens=common.min_tokens,
        stop=common.stop,
        stop_token_ids=common.stop_token_ids,
        constraint=common.constraint,
        ignore_eos=common.ignore_eos,
    )
    parsed = ParsedRequest(
        model=model,
        requests=[wanted],
        stream=bool(body.stream),
        encoder=partial(InfillEncoder, fields=body.response_fields),
        locate=partial(_locate, body=body, request=wanted),
        headers=partial(parameters.answer_headers, body, body.ignored()),
    )
    return await answered(request, parsed)


def _file(extra: ExtraFile) -> SourceFile:
    return SourceFile(name=extra.filename or _UNNAMED, text=extra.text)


def _locate(at: Locator, *, body: InfillRequest, request: GenerationRequest) -> Locator:
    """Where in the body the canonical place ``at`` was stated."""
    match at:
        case ("prompt" | "prompts", *_):
            return ("input_prefix",)
        case ("suffix", *_):
            return ("input_suffix",)
    constraint, schema = constraint_place(body), schema_place(body)
    return body.place(locate(at, request, constraint=constraint, schema=schema))


class InfillEncoder:
    """Encodes what fills one gap.

    Args:
        info: The model.
        fields: The only fields of a whole answer, by their paths; None: all.
    """

    def __init__(self, info: ModelInfo, *, fields: list[str] | None) -> None:
        self._model = info.model_id
        self._fields = fields
        self._prompt_tokens = 0
        self._predicted = 0

    def frames(self, event: ReplyEvent) -> Iterator[Frame]:
        """The events of a stream."""
        match event:
            case AnswerStarted(prompt_tokens=tokens):
                self._prompt_tokens = tokens
            case ContentDelta(text=text):
                self._predicted += 1
                yield self._frame(content=text, stop=False, tokens_predicted=self._predicted)
            case AnswerFinished(reason=reason, usage=usage, stop=stop):
                yield self._frame(content="", stop=True, **_ending(reason, stop, usage))

    def end(self) -> Iterator[Frame]:
        """Nothing: the last event says that it is the last."""
        return iter(())

    def whole(self, reply: Reply) -> bytes:
        """The whole answer."""
        (answer,) = reply.answers
        self._prompt_tokens = reply.usage.prompt_tokens
        ending = _ending(answer.finish_reason or "stop", answer.stop, reply.usage)
        whole = self._answer(content=answer.text, stop=True, **ending)
        if self._fields is not None:
            whole = {path: found for path in self._fields for found in _at(whole, path.split("/"))}
        return msgspec.json.encode(whole)

    def _frame(self, **fields: Any) -> Frame:
        return Frame(msgspec.json.encode(self._answer(**fields)))

    def _answer(self, **fields: Any) -> dict[str, Any]:
        return {
            "index": 0,
            **fields,
            "model": self._model,
            "tokens_evaluated": self._prompt_tokens,
            "truncated": False,
        }


def _ending(reason: AnswerFinishReason, stop: str | None, usage: Usage) -> dict[str, Any]:
    """What only the end of an answer tells."""
    word = "word" if stop is not None else "eos"
    return {
        "tokens_predicted": usage.completion_tokens,
        "stop_type": "limit" if reason == "length" else word,
        "stopping_word": stop or "",
        "tokens_cached": usage.cached_tokens,
        "timings": {
            "cache_n": usage.cached_tokens,
            "prompt_n": usage.prompt_tokens - usage.cached_tokens,
            "prompt_ms": usage.prefill_seconds * 1000,
            "predicted_n": usage.completion_tokens,
            "predicted_ms": usage.decode_seconds * 1000,
        },
    }


def _at(value: Any, steps: list[str]) -> Iterator[Any]:
    """The value at a path, if there is one."""
    for step in steps:
        if not isinstance(value, dict) or step not in value:
            return
        value = value[step]
    yield value

"""``/input_tokens`` below each path that generates: how many tokens a request's prompts have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.endpoint import converted, described_body, naming, read, rendered
from server.api.family import Operation
from server.api.openai.responses.schemas.response import InputTokens
from server.api.validation import to_json


def counting(*operations: Operation[Any]) -> APIRouter:
    """A router that counts the tokens of what ``operations`` take, without generating.

    The answers have the form of the Responses API's, as those of llama.cpp's server do.
    """
    router = APIRouter()
    for operation in operations:
        router.add_api_route(
            f"{operation.path}/input_tokens",
            _endpoint(operation),
            methods=["POST"],
            response_model=InputTokens,
            summary="Count the tokens of what would be generated for.",
            name="count_input_tokens",
            openapi_extra=described_body(operation.body),
        )
    return router


def _endpoint(operation: Operation[Any]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        body = await read(request, operation.body)
        parsed = await converted(request, lambda: operation.parse(body))
        count, headers = 0, {}
        for wanted in parsed.requests:
            info, prompt = await rendered(request, parsed.model, wanted.prompt, parsed.locate)
            count += len(prompt.tokens)
            headers = naming(prompt.ignored, parsed.headers(info))
        answer = InputTokens(object="response.input_tokens", input_tokens=count)
        return Response(to_json(answer), media_type="application/json", headers=headers)

    return handle

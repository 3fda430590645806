"""``POST /v1/responses/input_tokens``: how many tokens a request's prompt has."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.endpoint import described_body, located, read
from server.api.openai.responses.ignored import ignored_header, ignored_names
from server.api.openai.responses.parse import parsed_prompt
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.api.openai.responses.schemas.response import InputTokens
from server.api.validation import to_json
from server.http.disconnect import unless_gone

router = APIRouter()


@router.post(
    "/v1/responses/input_tokens",
    response_model=InputTokens,
    openapi_extra=described_body(ResponsesRequest),
)
async def count_input_tokens(request: Request) -> Response:
    """Count the tokens of a prompt, without generating."""
    shared = context(request)
    body = await read(request, ResponsesRequest)
    parsed = parsed_prompt(body)
    client = await unless_gone(request, shared.pool.open(body.model))
    with located(parsed.locate):
        rendered = await unless_gone(request, client.render(parsed.prompt))
    answer = InputTokens(object="response.input_tokens", input_tokens=len(rendered.tokens))
    names = [*ignored_names(body), *parsed.tools.ignored, *parsed.conversation.ignored]
    effort = body.reasoning.effort if body.reasoning is not None else None
    headers = ignored_header(names, client.info, effort=effort)
    return Response(to_json(answer), media_type="application/json", headers=headers)

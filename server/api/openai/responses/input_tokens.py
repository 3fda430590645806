"""``POST /v1/responses/input_tokens``: how many tokens a request's prompt has."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.endpoint import converted, described_body, read, rendered
from server.api.openai.responses.ignored import ignored_header, ignored_names
from server.api.openai.responses.origin import origin_of
from server.api.openai.responses.parse import parsed_prompt
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.api.openai.responses.schemas.response import InputTokens
from server.api.validation import to_json

router = APIRouter()


@router.post(
    "/v1/responses/input_tokens",
    response_model=InputTokens,
    openapi_extra=described_body(ResponsesRequest),
)
async def count_input_tokens(request: Request) -> Response:
    """Count the tokens of a prompt, without generating."""
    body = await read(request, ResponsesRequest)
    origin = await origin_of(
        request,
        given=body.input,
        previous_response_id=body.previous_response_id,
        conversation=body.conversation,
    )
    stored = bool(origin.items)
    parsed = await converted(request, lambda: parsed_prompt(body, origin), large=stored)
    info, prompt = await rendered(request, body.model, parsed.prompt, parsed.locate)
    answer = InputTokens(object="response.input_tokens", input_tokens=len(prompt.tokens))
    names = [*ignored_names(body), *parsed.tools.ignored, *parsed.conversation.ignored]
    headers = ignored_header(names, body, info)
    return Response(to_json(answer), media_type="application/json", headers=headers)

"""``POST /v1/messages/count_tokens``: how many tokens a conversation has, without an answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.anthropic.betas import unknown_betas
from server.api.anthropic.conversation import parse_conversation
from server.api.anthropic.errors import locate
from server.api.anthropic.messages import ignored_header
from server.api.anthropic.schemas.messages_request import CountTokensRequest
from server.api.anthropic.schemas.messages_response import TokensCount
from server.api.endpoint import described_body, naming, read, rendered
from server.api.validation import to_json
from server.core.errors import Locator

router = APIRouter()


@router.post(
    "/v1/messages/count_tokens",
    response_model=TokensCount,
    openapi_extra=described_body(CountTokensRequest),
)
async def count_tokens(request: Request) -> Response:
    """Count the tokens of a conversation; a model that is not loaded is loaded for it."""
    body = await read(request, CountTokensRequest)
    parsed = parse_conversation(body)

    def place(at: Locator) -> Locator:
        return body.place(
            locate(at, messages=parsed.messages, parts=parsed.parts, tools=parsed.tools)
        )

    info, prompt = await rendered(request, body.model, parsed.prompt, place)
    return Response(
        to_json(TokensCount(input_tokens=len(prompt.tokens))),
        media_type="application/json",
        headers=naming(unknown_betas(request.headers), ignored_header(body, parsed, info)),
    )

"""``POST /v1/messages/count_tokens``: how many tokens a conversation has, without an answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.anthropic.betas import unknown_betas
from server.api.anthropic.context_edits import context_edits
from server.api.anthropic.conversation import parse_conversation
from server.api.anthropic.errors import locate
from server.api.anthropic.messages import ignored_header
from server.api.anthropic.schemas.messages_request import CountTokensRequest
from server.api.anthropic.schemas.messages_response import OriginalTokens, TokensCount
from server.api.asking import OpenModel
from server.api.context import context
from server.api.endpoint import converted, described_body, located, naming, opened, read
from server.api.validation import to_json
from server.core.errors import Locator
from server.core.request import GenerationRequest
from server.http.disconnect import unless_gone

router = APIRouter()


@router.post(
    "/v1/messages/count_tokens",
    response_model=TokensCount,
    openapi_extra=described_body(CountTokensRequest),
)
async def count_tokens(request: Request) -> Response:
    """Count the tokens of a conversation; a model that is not loaded is loaded for it."""
    body = await read(request, CountTokensRequest)
    parsed = await converted(request, lambda: parse_conversation(body))

    def place(at: Locator) -> Locator:
        return body.place(
            locate(at, messages=parsed.messages, parts=parsed.parts, tools=parsed.tools)
        )

    edits = context_edits(body, parsed)

    async def counted(model: OpenModel) -> TokensCount:
        original = await model.count(parsed.prompt)
        if edits is None:
            return TokensCount(input_tokens=original, context_management=None)
        left = await edits.cleared(GenerationRequest(prompt=parsed.prompt), model)
        return TokensCount(
            input_tokens=await model.count(left.prompt),
            context_management=OriginalTokens(original_input_tokens=original),
        )

    client = await opened(request, body.model, parsed.prompt, place)
    with located(place):
        model = OpenModel(context(request), client, request.state.cache_scope)
        count = await unless_gone(request, counted(model))
    unread = [*unknown_betas(request.headers), *model.ignored]
    return Response(
        to_json(count),
        media_type="application/json",
        headers=naming(unread, ignored_header(body, parsed, client.info)),
    )

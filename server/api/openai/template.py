"""``POST /apply-template``: the native prompt that a conversation becomes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.endpoint import described_body, located, read
from server.api.openai.conversation import chat_prompt
from server.api.openai.errors import locate
from server.api.openai.schemas.template import NativePrompt, PromptSegment, TemplateRequest
from server.api.validation import to_json
from server.core.errors import InvalidRequest
from server.core.request import ChatPrompt, TextPrompt
from server.http.disconnect import unless_gone

router = APIRouter()


@router.post(
    "/apply-template", response_model=NativePrompt, openapi_extra=described_body(TemplateRequest)
)
async def apply_template(request: Request) -> Response:
    """Render a conversation, or tokenise a native prompt, without generating."""
    shared = context(request)
    body = await read(request, TemplateRequest)
    prompt = _prompt(body)
    client = await unless_gone(request, shared.pool.open(body.model))
    with located(locate):
        rendered = await unless_gone(request, client.render(prompt))
    answer = NativePrompt(
        prompt=rendered.prompt,
        tokens=rendered.tokens,
        segments=[
            PromptSegment(
                text=segment.text,
                tokens=segment.ids,
                control=segment.control,
                source=segment.source,
                pieces=segment.pieces,
            )
            for segment in rendered.segments
        ],
    )
    return Response(to_json(answer), media_type="application/json")


def _prompt(body: TemplateRequest) -> ChatPrompt | TextPrompt:
    if body.prompt is None:
        if not body.messages:
            raise InvalidRequest("messages: There is no message.", at=("messages",))
        return chat_prompt(body)
    if body.messages:
        raise InvalidRequest("messages and prompt exclude each other.", at=("prompt",))
    return TextPrompt(text=body.prompt)

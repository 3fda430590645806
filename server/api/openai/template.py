"""``POST /apply-template``: the native prompt that a conversation becomes."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.endpoint import described_body, read, rendered
from server.api.ignored_names import ignored_header, unknown_names
from server.api.openai.conversation import chat_prompt, wire_place
from server.api.openai.errors import locate
from server.api.openai.parameters import unread_variables
from server.api.openai.schemas.chat_tools import left_out
from server.api.openai.schemas.template import NativePrompt, PromptSegment, TemplateRequest
from server.api.validation import to_json
from server.core.errors import InvalidRequest, Locator
from server.core.request import ChatPrompt, TextPrompt

router = APIRouter()


@router.post(
    "/apply-template", response_model=NativePrompt, openapi_extra=described_body(TemplateRequest)
)
async def apply_template(request: Request) -> Response:
    """Render a conversation, or tokenise a native prompt, without generating."""
    body = await read(request, TemplateRequest)
    info, native = await rendered(request, body.model, _prompt(body), partial(_locate, body))
    answer = NativePrompt(
        prompt=native.prompt,
        tokens=native.tokens,
        segments=[
            PromptSegment(
                text=segment.text,
                tokens=segment.ids,
                control=segment.control,
                source=segment.source,
                pieces=segment.pieces,
            )
            for segment in native.segments
        ],
    )
    return Response(
        to_json(answer),
        media_type="application/json",
        headers=ignored_header(
            [
                *unknown_names(body),
                *left_out(body.tools or [], body.tool_choice),
                *unread_variables(body, info),
                *native.ignored,
            ]
        ),
    )


def _locate(body: TemplateRequest, at: Locator) -> Locator:
    return locate(wire_place(body.messages, at))


def _prompt(body: TemplateRequest) -> ChatPrompt | TextPrompt:
    if body.prompt is None:
        if not body.messages:
            raise InvalidRequest("messages: There is no message.", at=("messages",))
        return chat_prompt(body)
    if body.messages:
        raise InvalidRequest("messages and prompt exclude each other.", at=("prompt",))
    return TextPrompt(text=body.prompt)

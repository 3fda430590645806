"""``POST /v1/responses/compact``: a conversation made shorter by having the model sum it up."""

from __future__ import annotations

import time

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.asking import Asking
from server.api.context import context
from server.api.endpoint import converted, described_body, located, read
from server.api.ignored_names import ignored_header
from server.api.openai.responses.conversation import Conversation, conversation
from server.api.openai.responses.origin import Origin, origin_of
from server.api.openai.responses.packing import packed
from server.api.openai.responses.schemas.items import MessageItem
from server.api.openai.responses.schemas.lenient import unknown_fields
from server.api.openai.responses.schemas.request import CompactRequest
from server.api.openai.responses.schemas.response import Compaction
from server.api.openai.responses.stored_items import input_items
from server.api.openai.responses.tools import Toolbox
from server.api.openai.responses.truncation import Shortening
from server.api.openai.responses.usage import response_usage
from server.api.summary import SUMMARY_TASK, most_summary_tokens
from server.core.errors import InvalidRequest, Locator
from server.core.ids import id_with_home, random_id
from server.core.reply import Reply
from server.core.request import ChatPrompt, GenerationRequest, Message
from server.http.disconnect import unless_gone

router = APIRouter()


@router.post(
    "/v1/responses/compact",
    response_model=Compaction,
    openapi_extra=described_body(CompactRequest),
)
async def compact(request: Request) -> Response:
    """Make a conversation shorter: the users' messages, and an item that stands for all of it.

    Of a conversation that the context does not hold, the oldest items are left out of the summary.
    """
    body = await read(request, CompactRequest)
    given = body.input if body.input is not None else []
    origin = await origin_of(request, given=given, previous_response_id=body.previous_response_id)
    found = await converted(
        request,
        lambda: conversation(body.instructions, given, Toolbox(), origin),
        large=bool(origin.items),
    )
    if not given and not origin.items:
        raise InvalidRequest("input: there is nothing to make shorter.", at=("input",))
    ignored = [*unknown_fields(body), *found.ignored]
    reply = await _summary(request, body.model, found, ignored)
    summary = {
        "id": f"cmp_{random_id(40)}",
        "type": "compaction",
        "encrypted_content": packed(reply.answers[0].text.strip(), "compaction"),
    }
    answer = {
        "id": f"resp_{id_with_home(40)}",
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*_users_messages(origin, found), summary],
        "usage": response_usage(reply.usage).model_dump(),
    }
    headers = ignored_header(ignored)
    return Response(msgspec.json.encode(answer), media_type="application/json", headers=headers)


async def _summary(request: Request, model: str, found: Conversation, ignored: list[str]) -> Reply:
    if not found.compacts:
        found.add(Message(role="user", content=SUMMARY_TASK), ("input",))

    def locate(at: Locator) -> Locator:
        return found.place(at) if at[:1] in {("prompt",), ("messages",)} else at

    async def summed_up() -> Reply:
        client = await context(request).open(model)
        asked = GenerationRequest(
            prompt=ChatPrompt(messages=found.messages),
            max_tokens=most_summary_tokens(client.info.context),
            reasoning_budget=0,
        )
        shorter = Shortening(asked, found, ignored, summed_up=True)
        scope = request.state.cache_scope
        asking = Asking(context(request), model, [asked], scope, shorter=shorter)
        _, reply = await asking.whole()
        return reply

    with located(locate):
        return await unless_gone(request, summed_up())


def _users_messages(origin: Origin, found: Conversation) -> list[msgspec.Raw]:
    messages = [
        item
        for item in (*origin.items, *found.given)
        if isinstance(item, MessageItem) and item.role == "user"
    ]
    return [msgspec.Raw(item.body) for item in input_items(messages)]

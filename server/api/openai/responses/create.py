"""``POST /v1/responses``: answers a conversation of items."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.endpoint import answered, converted, described_body, read
from server.api.openai.responses.background import begin
from server.api.openai.responses.keeping import Keeping
from server.api.openai.responses.origin import Origin, conversation_id, origin_of
from server.api.openai.responses.parse import ParsedResponse, parse, response_id
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.api.openai.responses.schemas.response import ResponseObject
from server.core.attempts import Attempts
from server.core.errors import InvalidRequest, StoreUnavailable, UnsupportedParameter
from server.core.ids import ANSWER_LETTERS, id_with_home

if TYPE_CHECKING:
    from server.store.records import Records

router = APIRouter()


@router.post(
    "/v1/responses",
    response_model=ResponseObject,
    summary="Answer a conversation of items, whole or as a stream of events.",
    openapi_extra=described_body(ResponsesRequest),
)
async def create(request: Request) -> Response:
    """Make a response, and store it unless the request or the settings say otherwise."""
    body = await read(request, ResponsesRequest)
    store = context(request).store
    stored = store.enabled and body.store is not False
    if stored:
        store.prepare()
    if body.background:
        _check_background(body, enabled=store.enabled)
    attempts = getattr(request.state, "attempts", None) or Attempts(id_with_home(ANSWER_LETTERS))
    if stored and attempts.given_up:
        await _forget(request, attempts)
    origin = await origin_of(
        request,
        given=body.input,
        previous_response_id=body.previous_response_id,
        conversation=body.conversation,
    )
    parsed = await converted(
        request,
        lambda: parse(body, origin, stored=stored, name=attempts.this),
        large=bool(origin.items),
    )
    _name_what_is_not_stored(body, parsed, stored=stored, failing=store.failing)
    if not stored:
        return await answered(request, parsed.request)
    keeping = await _keeping(request, body, parsed, origin)
    if keeping is None:
        return await answered(request, parsed.request)
    if body.background:
        return await begin(request, parsed, keeping)

    async def settle() -> None:
        if not await keeping.save(parsed.encoder.response) and "store" not in parsed.ignored:
            parsed.ignored.append("store")

    return await answered(request, replace(parsed.request, settle=settle))


async def _forget(request: Request, attempts: Attempts) -> None:
    """Have nothing stored of attempts that were given up, before this one reads what there is."""
    shared = context(request)

    def forget(records: Records) -> None:
        for name in attempts.given_up:
            records.responses.give_up(response_id(name), owner)

    with suppress(StoreUnavailable):  # it is in the log
        owner = await shared.store.owner(request.state.cache_scope.api_key)
        await shared.store.write(forget)


def _check_background(body: ResponsesRequest, *, enabled: bool) -> None:
    if not enabled:
        raise UnsupportedParameter(
            "background: nothing is stored here, so no response can be fetched later.",
            at=("background",),
        )
    if body.store is False:
        raise InvalidRequest(
            "background: a response that is made in the background has to be stored.",
            at=("background",),
        )


def _name_what_is_not_stored(
    body: ResponsesRequest, parsed: ParsedResponse, *, stored: bool, failing: bool
) -> None:
    if (body.store and not stored) or (stored and failing):
        parsed.ignored.append("store")
    if body.conversation is not None and not stored:
        parsed.ignored.append("conversation (nothing is appended)")


async def _keeping(
    request: Request, body: ResponsesRequest, parsed: ParsedResponse, origin: Origin
) -> Keeping | None:
    """Where the response is kept; None if the store cannot be opened, which its log says."""
    shared = context(request)
    try:
        owner = await shared.store.owner(request.state.cache_scope.api_key)
    except StoreUnavailable:
        if body.background:
            raise
        parsed.ignored.append("store")
        return None
    return Keeping(
        store=shared.store,
        owner=owner,
        given=parsed.given,
        before=origin.ids,
        previous_id=body.previous_response_id,
        conversation_id=None if body.conversation is None else conversation_id(body.conversation),
        runner=shared.runs.runner if body.background else None,
    )

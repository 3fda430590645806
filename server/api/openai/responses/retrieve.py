"""``/v1/responses/{id}``: responses that are stored, or being made in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.family import Frame
from server.api.ignored_names import ignored_header
from server.api.openai.queries import flag, number, page_request, words
from server.api.openai.responses.background import streamed
from server.api.openai.responses.ignored import ignored_includes
from server.api.openai.responses.replay import replayed
from server.api.openai.responses.schemas.response import (
    DeletedResponse,
    ItemList,
    ResponseObject,
)
from server.api.openai.responses.stored_items import is_id, item_list
from server.api.validation import to_json
from server.core.errors import InvalidRequest, NotFound
from server.store import kinds
from server.store.kinds import RUNNING, Item, StoredEvent, UnknownCursor
from server.store.store import Store

if TYPE_CHECKING:
    from server.store.records import Records

router = APIRouter()

_POLL_SECONDS = 0.5
"""How often events are looked for that another server stores."""


@router.get("/v1/responses/{response_id}", response_model=ResponseObject)
async def retrieve(request: Request, response_id: str) -> Response:
    """Fetch a response, or with ``stream`` the events of one made in the background."""
    after = number(request, "starting_after", least=0)
    owner = await _owner(request)
    found, outputs = await _found(request, response_id, owner)
    ignored = ignored_includes(words(request, "include"))
    headers = ignored_header(list(ignored))
    if after is not None and found.runner is None:
        raise InvalidRequest(
            "starting_after: only the events of responses made in the background are kept.",
            at=("starting_after",),
        )
    if flag(request, "stream"):
        first = 0 if after is None else after + 1
        return await streamed(request, _frames(request, found, outputs, first), headers)
    return Response(_body(found, outputs), media_type="application/json", headers=headers)


@router.delete("/v1/responses/{response_id}", response_model=DeletedResponse)
async def delete(request: Request, response_id: str) -> Response:
    """Delete a response; one that is being made is cancelled."""
    owner = await _owner(request)
    await _found(request, response_id, owner)
    run = context(request).runs.get(response_id)
    if run is not None:
        run.stop()
        await run.ended()
    await context(request).store.write(lambda records: records.responses.delete(response_id, owner))
    answer = DeletedResponse(id=response_id, object="response", deleted=True)
    return Response(to_json(answer), media_type="application/json")


@router.post("/v1/responses/{response_id}/cancel", response_model=ResponseObject)
async def cancel(request: Request, response_id: str) -> Response:
    """End a response that is being made in the background; one that has ended stays as it is."""
    owner = await _owner(request)
    found, outputs = await _found(request, response_id, owner)
    if found.runner is None:
        raise InvalidRequest("Only a response that is made in the background can be cancelled.")
    if found.status in RUNNING:
        run = context(request).runs.get(response_id)
        if run is not None:
            run.stop()
            await run.ended()
        else:
            ended = _ended(found, "cancelled")
            await context(request).store.write(
                lambda records: records.responses.finish(
                    ended, records.responses.inputs(response_id), []
                )
            )
        found, outputs = await _found(request, response_id, owner)
    return Response(_body(found, outputs), media_type="application/json")


@router.get("/v1/responses/{response_id}/input_items", response_model=ItemList)
async def input_items(request: Request, response_id: str) -> Response:
    """List the items that a response was made from, those of earlier responses among them."""
    asked = page_request(request)
    await _found(request, response_id, await _owner(request))
    try:
        page = await context(request).store.read(
            lambda records: records.responses.input_page(response_id, asked)
        )
    except UnknownCursor:
        raise InvalidRequest("after: the list has no such item.", at=("after",)) from None
    ignored = ignored_includes(words(request, "include"))
    headers = ignored_header(list(ignored))
    return Response(item_list(page), media_type="application/json", headers=headers)


async def _owner(request: Request) -> str:
    store = context(request).store
    return await store.owner(request.state.cache_scope.api_key) if store.enabled else ""


async def _found(
    request: Request, response_id: str, owner: str
) -> tuple[kinds.Response, list[Item]]:
    """The response and the items of its output; raises NotFound.

    A response whose server is gone has failed.
    """
    shared = context(request)

    def load(records: Records) -> tuple[kinds.Response, list[Item], bool] | None:
        found = records.responses.get(response_id, owner)
        if found is None:
            return None
        gone = (
            found.status in RUNNING
            and found.runner is not None
            and shared.runs.get(response_id) is None
            and records.runners.is_gone(found.runner)
        )
        return found, records.responses.outputs(response_id), gone

    loaded = None
    if shared.store.enabled and is_id(response_id):
        loaded = await shared.store.read(load)
    if loaded is None:
        raise NotFound(f"Response with id {response_id[:100]!r} not found.", at=("response_id",))
    found, outputs, gone = loaded
    if not gone:
        return found, outputs
    failed = _ended(found, "failed")
    await shared.store.write(lambda records: _fail(records, failed))
    return failed, []


def _fail(records: Records, failed: kinds.Response) -> None:
    """Store that a response has failed whose server is gone, and the event that tells of it."""
    events = records.events.after(failed.id, -1)
    number = events[-1].sequence + 1 if events else 0
    event = {"type": "response.failed", "sequence_number": number}
    body = msgspec.json.encode({**event, "response": msgspec.Raw(_body(failed, []))})
    last = [StoredEvent(number, "response.failed", body)]
    records.responses.finish(failed, records.responses.inputs(failed.id), [], last)


def _ended(found: kinds.Response, status: kinds.Status) -> kinds.Response:
    """A running response, ended from outside."""
    body = msgspec.json.decode(found.body)
    body["status"] = status
    if status == "failed":
        body["error"] = {
            "code": "server_error",
            "message": "The server that was making this response has stopped.",
        }
    return msgspec.structs.replace(found, status=status, body=msgspec.json.encode(body))


def _body(found: kinds.Response, outputs: Sequence[Item]) -> bytes:
    """A response on the wire."""
    fields = msgspec.json.decode(found.body, type=dict[str, msgspec.Raw])
    output = msgspec.Raw(msgspec.json.encode([msgspec.Raw(item.body) for item in outputs]))
    return msgspec.json.encode({**fields, "output": output})


async def _frames(
    request: Request, found: kinds.Response, outputs: Sequence[Item], first: int
) -> AsyncGenerator[Frame]:
    """The events of a response from number ``first`` on, as they come."""
    shared = context(request)
    run = shared.runs.get(found.id)
    if run is not None:
        async for frame in run.follow(first):
            yield frame
        return
    if found.runner is None:
        for frame in replayed(msgspec.json.decode(_body(found, outputs))):
            yield frame
        return
    over = False
    while True:
        events = await _events_after(shared.store, found.id, first - 1)
        for event in events:
            yield Frame(event.body, event.type)
            first = event.sequence + 1
        if over:
            return
        now, _ = await _found(request, found.id, found.owner)
        # The last events are stored together with the end.
        over = now.status not in RUNNING
        if not over:
            await asyncio.sleep(_POLL_SECONDS)


async def _events_after(store: Store, name: str, number: int) -> list[StoredEvent]:
    return await store.read(lambda records: records.events.after(name, number))

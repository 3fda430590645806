"""``/v1/conversations``: conversations and their items."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.endpoint import described_body, read
from server.api.ignored_names import ignored_header
from server.api.openai.conversations.bodies import (
    ChangedConversation,
    ConversationItem,
    ConversationObject,
    DeletedConversation,
    NewConversation,
    NewItems,
)
from server.api.openai.queries import page_request, words
from server.api.openai.responses.call_results import with_call_ids
from server.api.openai.responses.content import check_images
from server.api.openai.responses.ignored import ignored_includes
from server.api.openai.responses.origin import origin_of, placed
from server.api.openai.responses.schemas.items import InputItem
from server.api.openai.responses.schemas.lenient import unknown_fields
from server.api.openai.responses.schemas.response import ItemList
from server.api.openai.responses.stored_items import (
    input_items,
    is_id,
    item_list,
    parsed_items,
)
from server.api.validation import to_json
from server.core.errors import InvalidRequest, NotFound, UnsupportedParameter
from server.core.ids import id_with_home
from server.store.kinds import Conversation, Item, Page, PageRequest, UnknownCursor

if TYPE_CHECKING:
    from server.store.records import Records

T = TypeVar("T")

router = APIRouter(prefix="/v1/conversations")

_JSON = "application/json"


@router.post("", response_model=ConversationObject, openapi_extra=described_body(NewConversation))
async def create(request: Request) -> Response:
    """Begin a conversation, with items if there are any."""
    body = await read(request, NewConversation)
    store = context(request).store
    if not store.enabled:
        raise UnsupportedParameter("Nothing is stored here: the setting store is off.")
    given = await _given(request, body.items or [])
    made = Conversation(
        id=f"conv_{id_with_home(40)}",
        owner=await store.owner(request.state.cache_scope.api_key),
        created_at=int(time.time()),
        metadata=msgspec.json.encode(body.metadata or {}),
    )
    stored = input_items(with_call_ids(given, list))
    await store.write(lambda records: records.conversations.create(made, stored))
    return _answer(made, unknown_fields(body))


@router.get("/{conversation_id}", response_model=ConversationObject)
async def retrieve(request: Request, conversation_id: str) -> Response:
    """Fetch a conversation, without its items."""
    return _answer(await _read(request, conversation_id, lambda _, found: found))


@router.post(
    "/{conversation_id}",
    response_model=ConversationObject,
    openapi_extra=described_body(ChangedConversation),
)
async def change(request: Request, conversation_id: str) -> Response:
    """Replace a conversation's metadata."""
    body = await read(request, ChangedConversation)
    metadata = msgspec.json.encode(body.metadata or {})

    def write(records: Records, found: Conversation) -> Conversation:
        changed = msgspec.structs.replace(found, metadata=metadata)
        records.conversations.update(changed)
        return changed

    changed = await _write(request, conversation_id, write)
    return _answer(changed, unknown_fields(body))


@router.delete("/{conversation_id}", response_model=DeletedConversation)
async def delete(request: Request, conversation_id: str) -> Response:
    """Delete a conversation; responses that belong to it keep their items."""
    await _write(
        request, conversation_id, lambda records, found: records.conversations.delete(found)
    )
    gone = DeletedConversation(id=conversation_id, object="conversation.deleted", deleted=True)
    return Response(to_json(gone), media_type=_JSON)


@router.post(
    "/{conversation_id}/items",
    response_model=ItemList,
    openapi_extra=described_body(NewItems),
)
async def create_items(request: Request, conversation_id: str) -> Response:
    """Append items; the answer lists them."""
    body = await read(request, NewItems)
    given = await _given(request, body.items)

    def write(records: Records, found: Conversation) -> list[Item]:
        named = with_call_ids(given, lambda: parsed_items(records.conversations.context(found)))
        added = input_items(named, records.conversations.item_ids(found))
        records.conversations.append(found, added)
        return added

    added = await _write(request, conversation_id, write)
    return _listed(request, Page(added, more=False), unknown_fields(body))


@router.get("/{conversation_id}/items", response_model=ItemList)
async def list_items(request: Request, conversation_id: str) -> Response:
    """List the items of a conversation."""
    asked = page_request(request)

    def load(records: Records, found: Conversation) -> Page:
        return _page(records, found, asked)

    return _listed(request, await _read(request, conversation_id, load))


@router.get("/{conversation_id}/items/{item_id}", response_model=ConversationItem)
async def retrieve_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """Fetch an item."""
    item = await _read(
        request, conversation_id, lambda records, found: _item(records, found, item_id)
    )
    return Response(item.body, media_type=_JSON, headers=_headers(request))


@router.delete("/{conversation_id}/items/{item_id}", response_model=ConversationObject)
async def delete_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """Delete an item from a conversation, which is the answer."""

    def write(records: Records, found: Conversation) -> Conversation:
        _item(records, found, item_id)
        records.conversations.delete_item(found, item_id)
        return found

    return _answer(await _write(request, conversation_id, write))


async def _given(request: Request, items: list[InputItem]) -> list[InputItem]:
    """``items``, those they refer to instead of references.

    Raises NotFound, and InvalidImage for an image that no response could go on from.
    """
    origin = await origin_of(request, given=items)
    found = list(placed(items, origin, [], field="items"))
    for item, at in found:
        check_images(item, at)
    return [item for item, _ in found]


async def _read(
    request: Request, conversation_id: str, work: Callable[[Records, Conversation], T]
) -> T:
    """What ``work`` makes of the conversation; raises NotFound."""
    owner = await _owner(request, conversation_id)
    return await context(request).store.read(
        lambda records: work(records, _found(records, conversation_id, owner))
    )


async def _write(
    request: Request, conversation_id: str, work: Callable[[Records, Conversation], T]
) -> T:
    """As `_read`, in a transaction that writes."""
    owner = await _owner(request, conversation_id)
    return await context(request).store.write(
        lambda records: work(records, _found(records, conversation_id, owner))
    )


async def _owner(request: Request, conversation_id: str) -> str:
    """Whose conversations the request may see; raises NotFound for what cannot be an id."""
    store = context(request).store
    if not (store.enabled and is_id(conversation_id)):
        raise _missing(conversation_id)
    return await store.owner(request.state.cache_scope.api_key)


def _found(records: Records, conversation_id: str, owner: str) -> Conversation:
    found = records.conversations.get(conversation_id, owner)
    if found is None:
        raise _missing(conversation_id)
    return found


def _item(records: Records, conversation: Conversation, item_id: str) -> Item:
    item = records.conversations.item(conversation, item_id) if is_id(item_id) else None
    if item is None:
        raise NotFound(
            f"Item with id {item_id[:100]!r} not found in this conversation.", at=("item_id",)
        )
    return item


def _page(records: Records, found: Conversation, asked: PageRequest) -> Page:
    try:
        return records.conversations.page(found, asked)
    except UnknownCursor:
        raise InvalidRequest("after: the list has no such item.", at=("after",)) from None


def _missing(name: str) -> NotFound:
    return NotFound(f"Conversation with id {name[:100]!r} not found.", at=("conversation_id",))


def _answer(conversation: Conversation, ignored: Iterable[str] = ()) -> Response:
    body = {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at,
        "metadata": msgspec.Raw(conversation.metadata),
    }
    headers = ignored_header(list(ignored))
    return Response(msgspec.json.encode(body), media_type=_JSON, headers=headers)


def _listed(request: Request, page: Page, ignored: Iterable[str] = ()) -> Response:
    return Response(item_list(page), media_type=_JSON, headers=_headers(request, ignored))


def _headers(request: Request, ignored: Iterable[str] = ()) -> dict[str, str]:
    names = [*ignored_includes(words(request, "include")), *ignored]
    return ignored_header(names)

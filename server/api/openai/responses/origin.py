"""What a request goes on from: a stored response, a conversation, and items it refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request

from server.api.context import context
from server.api.openai.responses.errors import PreviousResponseNotFound
from server.api.openai.responses.schemas.item_forms import call_id
from server.api.openai.responses.schemas.items import (
    CustomToolCallItem,
    FunctionCallItem,
    InputItem,
    ItemReference,
    MessageItem,
)
from server.api.openai.responses.schemas.request import ConversationRef
from server.api.openai.responses.stored_items import is_id, parsed_items
from server.api.openai.schemas.chat_request import CustomToolCall, FunctionToolCall
from server.core.errors import InvalidRequest, Locator, NotFound, path_text
from server.store.kinds import Item

if TYPE_CHECKING:
    from server.store.records import Records


Placed = tuple[InputItem, Locator]
"""An item, and where the request has it."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Items that are stored and come before those of a request, or among them.

    Attributes:
        items: The items before those of the request.
        at: The field of the request that stands for them.
        references: The items that the request refers to, by id.
    """

    items: Sequence[InputItem] = ()
    at: Locator = ()
    references: Mapping[str, InputItem] = field(default_factory=dict)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of ``items``."""
        return frozenset(item.id for item in self.items if item.id is not None)


async def origin_of(
    request: Request,
    *,
    given: str | Sequence[InputItem] | None,
    previous_response_id: str | None = None,
    conversation: str | ConversationRef | None = None,
) -> Origin:
    """What the fields of a request's body stand for.

    Raises:
        InvalidRequest: Both fields are given.
        PreviousResponseNotFound: There is no such response, or it belongs to another key.
        NotFound: So with a conversation.
        StoreUnavailable: The store cannot be read.
    """
    if previous_response_id is not None and conversation is not None:
        raise InvalidRequest(
            "previous_response_id and conversation exclude each other.",
            at=("previous_response_id",),
        )
    references = list(_references(given))
    if previous_response_id is None and conversation is None and not references:
        return Origin()
    store = context(request).store
    owner = await store.owner(request.state.cache_scope.api_key) if store.enabled else ""

    def load(records: Records) -> Origin:
        at: Locator = ()
        before: list[Item] = []
        if previous_response_id is not None:
            at = ("previous_response_id",)
            before = _items_of_response(records, previous_response_id, owner)
        elif conversation is not None:
            at = ("conversation",)
            before = _items_of_conversation(records, conversation_id(conversation), owner)
        found = records.responses.find_items(references, owner)
        referred = parsed_items(list(found.values()))
        return Origin(
            items=parsed_items(before),
            at=at,
            references=dict(zip(found, referred, strict=True)),
        )

    if not store.enabled:
        if previous_response_id is not None:
            raise _no_response(previous_response_id, "nothing is stored here")
        if conversation is not None:
            raise no_conversation(conversation_id(conversation), "nothing is stored here")
        return Origin()
    return await store.read(load)


def placed(
    given: str | Sequence[InputItem],
    origin: Origin,
    ignored: list[str],
    *,
    field: str = "input",
) -> Iterator[Placed]:
    """The items of a request and their places, those it refers to instead of the references.

    ``field`` has the items; ``ignored`` gets the places of references to what is there already.
    Raises NotFound for a reference to what is not stored.
    """
    if isinstance(given, str):
        yield MessageItem(role="user", content=given), (field,)
        return
    before = origin.ids
    for index, item in enumerate(given):
        at: Locator = (field, index)
        if isinstance(item, MessageItem) and item.tool_calls:
            if item.role == "assistant":
                yield from _with_calls(item, item.tool_calls, at)
            else:
                ignored.append(path_text((*at, "tool_calls")))
                yield item.model_copy(update={"tool_calls": None}), at
        elif not isinstance(item, ItemReference):
            yield item, at
        elif item.id in before:
            ignored.append(f"{path_text(at)} (it is there already)")
        elif item.id in origin.references:
            yield origin.references[item.id], at
        else:
            place = (*at, "id")
            raise NotFound(
                f"{path_text(place)}: there is no item {item.id[:100]!r} here. Send the item "
                "itself.",
                at=place,
            )


def _with_calls(
    message: MessageItem, calls: Sequence[FunctionToolCall | CustomToolCall], at: Locator
) -> Iterator[Placed]:
    """A message of chat completions as items: what it says, if anything, and each of its calls."""
    if message.content:
        yield message.model_copy(update={"tool_calls": None}), at
    for number, call in enumerate(calls):
        yield _call_item(call), (*at, "tool_calls", number)


def _call_item(call: FunctionToolCall | CustomToolCall) -> InputItem:
    if isinstance(call, FunctionToolCall):
        function = call.function
        return FunctionCallItem(
            type="function_call",
            call_id=call.id or call_id(function.name),
            name=function.name,
            arguments=function.arguments,
        )
    custom = call.custom
    return CustomToolCallItem(
        type="custom_tool_call",
        call_id=call.id or call_id(custom.name),
        name=custom.name,
        input=custom.input,
    )


def conversation_id(reference: str | ConversationRef) -> str:
    """The id in either form of a reference."""
    return reference if isinstance(reference, str) else reference.id


def no_conversation(name: str, why: str = "") -> NotFound:
    """The error for a conversation that is not there, or not the caller's."""
    reason = f": {why}" if why else ""
    return NotFound(f"Conversation with id {name[:100]!r} not found{reason}.", at=("conversation",))


def _no_response(name: str, why: str = "") -> PreviousResponseNotFound:
    reason = f": {why}" if why else ""
    return PreviousResponseNotFound(
        f"Previous response with id {name[:100]!r} not found{reason}. Send the whole conversation "
        "as input.",
        at=("previous_response_id",),
    )


def _items_of_response(records: Records, name: str, owner: str) -> list[Item]:
    found = records.responses.get(name, owner) if is_id(name) else None
    if found is None:
        raise _no_response(name)
    if found.status in {"queued", "in_progress"}:
        raise InvalidRequest(
            f"The response {name} is still {found.status}.", at=("previous_response_id",)
        )
    return records.responses.context(name)


def _items_of_conversation(records: Records, name: str, owner: str) -> list[Item]:
    found = records.conversations.get(name, owner) if is_id(name) else None
    if found is None:
        raise no_conversation(name)
    return records.conversations.context(found)


def _references(given: str | Sequence[InputItem] | None) -> Iterator[str]:
    for item in given or []:
        if isinstance(item, ItemReference) and is_id(item.id):
            yield item.id

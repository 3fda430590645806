"""Bodies and answers of ``/v1/conversations``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from server.api.openai.responses.schemas.items import InputItem
from server.api.openai.responses.schemas.lenient import LenientModel
from server.api.openai.responses.schemas.request import MAX_ITEMS

Items = Annotated[list[InputItem], Field(max_length=MAX_ITEMS)]


class NewConversation(LenientModel):
    """A conversation that begins with ``items``."""

    items: Items | None = None
    metadata: dict[str, str] | None = None


class ChangedConversation(LenientModel):
    """What the conversation's metadata becomes."""

    metadata: dict[str, str] | None


class NewItems(LenientModel):
    """Items to append."""

    items: Items


class ConversationObject(BaseModel):
    """A conversation, without its items."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, Any]


class DeletedConversation(BaseModel):
    """Says that a conversation is gone."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class ConversationItem(BaseModel):
    """An item; its other fields depend on its type."""

    id: str
    type: str

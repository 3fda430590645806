"""The body and the answer of ``POST /apply-template``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from server.api.openai.schemas.chat_request import MAX_MESSAGES, ChatMessage, ConversationFields
from server.api.unnamed_model import ModelField


class TemplateRequest(ModelField, ConversationFields):
    """The parts of a chat completion that make its prompt, or a prompt that is native already."""

    messages: Annotated[list[ChatMessage], Field(default=[], max_length=MAX_MESSAGES)]
    prompt: str | None = Field(
        None, description="Instead of ``messages``: a native prompt, to see its tokens."
    )


class PromptSegment(BaseModel):
    """A run of the prompt, who wrote it, and its tokens.

    ``pieces`` is the text cut where the tokens meet; empty where they do not spell it.
    """

    text: str
    tokens: list[int]
    control: bool
    source: Literal["user", "template", "image"]
    pieces: list[str]


class NativePrompt(BaseModel):
    """The prompt as the model gets it."""

    prompt: str
    tokens: list[int]
    segments: list[PromptSegment]

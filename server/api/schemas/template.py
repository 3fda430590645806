"""The body and the answer of ``POST /apply-template``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from server.api.schemas.chat_request import ConversationFields


class TemplateRequest(ConversationFields):
    """The parts of a chat completion that make its prompt."""

    model: str


class PromptSegment(BaseModel):
    """A run of the prompt, who wrote it, and its tokens."""

    text: str
    tokens: list[int]
    control: bool
    source: Literal["user", "template"]


class NativePrompt(BaseModel):
    """The prompt as the model gets it."""

    prompt: str
    tokens: list[int]
    segments: list[PromptSegment]

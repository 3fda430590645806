"""What Anthropic's clients get: messages, counts, models and errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from server.api.pages import Identified, Page

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class TextOut(BaseModel):
    """Text."""

    type: Literal["text"] = "text"
    text: str


class ThinkingOut(BaseModel):
    """Thoughts, and a signature by which this server knows them again."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str


class ToolUseOut(BaseModel):
    """A call."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


BlockOut = Annotated[TextOut | ThinkingOut | ToolUseOut, Field(discriminator="type")]


class OutputTokensDetails(BaseModel):
    """Tokens of thoughts among those of the answer."""

    thinking_tokens: int


class Usage(BaseModel):
    """Tokens; those of the prompt are the sum of the three counts of input."""

    input_tokens: int
    cache_creation_input_tokens: int = Field(
        0, description="Always 0: whatever is computed is cached, at no price."
    )
    cache_read_input_tokens: int = 0
    output_tokens: int
    output_tokens_details: OutputTokensDetails


class MessageOut(BaseModel):
    """A whole answer; what a stream begins with has no content and no reason."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[BlockOut]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: Usage


class TokensCount(BaseModel):
    """The tokens of a prompt."""

    input_tokens: int


class ModelOut(Identified):
    """A model that can be asked."""

    type: Literal["model"] = "model"
    display_name: str
    created_at: str
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None
    max_tokens: int | None


class ModelPage(Page[ModelOut]):
    """Models, all on one page."""


class ErrorDetail(BaseModel):
    """The kind of an error, and what is wrong."""

    type: str
    message: str


class ErrorBody(BaseModel):
    """An error."""

    type: Literal["error"] = "error"
    error: ErrorDetail
    request_id: str

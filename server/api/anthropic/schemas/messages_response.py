"""What Anthropic's clients get: messages, counts, models and errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from server.api.pages import Identified, Page

StopReason = Literal[
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "compaction",
    "model_context_window_exceeded",
]


def _is_none(value: object) -> bool:
    return value is None


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


class CompactionOut(BaseModel):
    """A summary of the conversation, which stands for it in later requests; None if it failed."""

    type: Literal["compaction"] = "compaction"
    content: str | None


BlockOut = Annotated[
    TextOut | ThinkingOut | ToolUseOut | CompactionOut, Field(discriminator="type")
]


class OutputTokensDetails(BaseModel):
    """Tokens of thoughts among those of the answer."""

    thinking_tokens: int


class IterationUsage(BaseModel):
    """Tokens of one of the two steps of an answer that begins with a summary."""

    type: Literal["compaction", "message"]
    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int


class Usage(BaseModel):
    """Tokens; those of the prompt are the sum of the three counts of input."""

    input_tokens: int
    cache_creation_input_tokens: int = Field(
        0, description="Always 0: whatever is computed is cached, at no price."
    )
    cache_read_input_tokens: int = 0
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    iterations: list[IterationUsage] | None = Field(
        None,
        description="Where an answer begins with a summary: that one's tokens, and its own.",
        exclude_if=_is_none,
    )


class AppliedEdits(BaseModel):
    """What of the request's ``context_management`` cleared something."""

    applied_edits: list[dict[str, Any]]


class MessageOut(BaseModel):
    """A whole answer; what a stream begins with has no content and no reason.

    ``context_management`` is there where the request has it.
    """

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[BlockOut]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: Usage
    context_management: AppliedEdits | None = Field(None, exclude_if=_is_none)


class OriginalTokens(BaseModel):
    """The tokens of a prompt before anything was cleared."""

    original_input_tokens: int


class TokensCount(BaseModel):
    """The tokens of a prompt, without what is cleared; all of them where the request clears any."""

    input_tokens: int
    context_management: OriginalTokens | None = Field(None, exclude_if=_is_none)


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

"""The bodies of ``POST /v1/responses`` and ``POST /v1/responses/input_tokens``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.api.constraint_fields import ConstraintFields
from server.api.generation_fields import LocalFields, Stops, ThinkingFields
from server.api.openai.responses.schemas.items import InputItem
from server.api.openai.responses.schemas.lenient import LenientModel
from server.api.openai.responses.schemas.settings import (
    ReasoningOptions,
    TextOptions,
    as_options,
)
from server.api.openai.responses.schemas.tools import MAX_TOOLS, AnyTool, Choice
from server.api.spellings import respell
from server.api.unnamed_model import ModelField
from server.api.validation import Respelled

MAX_ITEMS = 10_000
MAX_TOP_LOGPROBS = 20
MAX_EDITS = 16
"""A choice: there is one kind."""


class StreamOptions(LenientModel):
    """How to stream."""

    include_obfuscation: Any = Field(None, description="Accepted and ignored.")


class ConversationRef(LenientModel):
    """A stored conversation."""

    id: str


class ContextEdit(LenientModel):
    """What becomes of a full context; the threshold is three quarters of it by default."""

    type: str
    compact_threshold: Annotated[int, Field(ge=0)] | None = None


class CompactRequest(ModelField, LenientModel):
    """A conversation to be made shorter; fields that are unknown here have no effect."""

    input: str | Annotated[list[InputItem], Field(max_length=MAX_ITEMS)] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None


class ResponsesRequest(ModelField, LocalFields, ThinkingFields, ConstraintFields):
    """Parameters of a response."""

    input: str | Annotated[list[InputItem], Field(max_length=MAX_ITEMS)] | None = Field(
        None,
        description="May be left out after a ``previous_response_id`` or in a ``conversation``.",
    )
    instructions: str | None = None
    tools: Annotated[list[AnyTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Annotated[ReasoningOptions, BeforeValidator(as_options)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Stops | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="With ``auto``, the oldest items of a too long conversation are left out."
    )
    context_management: Annotated[list[ContextEdit], Field(max_length=MAX_EDITS)] | None = Field(
        None,
        description="With an entry `compaction`, an answer begins with a summary of a conversation "
        "of more than its `compact_threshold` tokens, and goes on from that.",
    )
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    store: bool | None = Field(None, description="Whether to keep the response (default: true).")
    background: bool | None = Field(
        None, description="Answer at once, and make the response without the client."
    )
    previous_response_id: str | None = Field(
        None, description="The stored response whose items come before ``input``."
    )
    conversation: str | ConversationRef | None = Field(
        None,
        description="The stored conversation whose items come before ``input``, and which input "
        "and output are appended to.",
    )
    prompt: Any = Field(None, description="A stored prompt; refused.")

    max_tool_calls: Any = Field(None, description="Accepted and ignored.")
    prompt_cache_key: Any = Field(None, description="Accepted and ignored.")
    safety_identifier: Any = Field(None, description="Accepted and ignored.")
    service_tier: Any = Field(None, description="Accepted and ignored.")
    user: Any = Field(None, description="Accepted and ignored.")

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under our names for what other servers name differently."""
        return respell(body, cls, {"max_tokens": "max_output_tokens", "messages": "input"})

"""The bodies of ``POST /v1/responses`` and ``POST /v1/responses/input_tokens``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from server.api.constraint_fields import ConstraintFields
from server.api.generation_fields import Effort, LocalFields, Stops, ThinkingFields
from server.api.openai.responses.schemas.items import InputItem
from server.api.openai.responses.schemas.lenient import LenientModel
from server.api.openai.responses.schemas.tools import MAX_TOOLS, AnyTool, Choice
from server.api.spellings import respell
from server.api.validation import Respelled, whole

MAX_ITEMS = 10_000
MAX_TOP_LOGPROBS = 20


def _usual_summary(value: object) -> object:
    """How much of a summary, where "none" is no summary, as Codex's setting has it."""
    return None if value == "none" else value


Summary = Annotated[Literal["auto", "concise", "detailed"] | None, BeforeValidator(_usual_summary)]


class ReasoningOptions(LenientModel):
    """How much to think, and what to show of it.

    There are no summaries apart from the reasoning itself: with ``summary``, the reasoning is
    given as the summary.
    """

    effort: Effort = None
    enabled: bool | None = Field(None, description="Whether to think, as OpenRouter has it.")
    max_tokens: Annotated[int, Field(ge=-1), BeforeValidator(whole)] | None = Field(
        None, description="The most tokens of reasoning, as OpenRouter has it."
    )
    summary: Summary = None
    generate_summary: Summary = Field(None, description="The old name of ``summary``.")


def _as_options(value: object) -> object:
    """A switch or a level alone, as OpenRouter's clients send them to chat completions."""
    if isinstance(value, bool):
        return {"enabled": value}
    return {"effort": value} if isinstance(value, str) else value


class TextFormat(LenientModel):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(LenientModel):
    """Any JSON object, or one that matches ``schema``."""

    model_config = ConfigDict(protected_namespaces=())

    type: Literal["json_object"]
    json_schema: dict[str, Any] | None = Field(None, alias="schema")


class JsonSchemaFormat(LenientModel):
    """JSON that matches a schema."""

    model_config = ConfigDict(protected_namespaces=())

    type: Literal["json_schema"]
    name: Annotated[str, Field(max_length=256)] | None = None
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextOptions(LenientModel):
    """The form of the answer's text."""

    format: (
        Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
        | None
    ) = None
    verbosity: Any = Field(None, description="Accepted and ignored.")


class StreamOptions(LenientModel):
    """How to stream."""

    include_obfuscation: Any = Field(None, description="Accepted and ignored.")


class ConversationRef(LenientModel):
    """A stored conversation."""

    id: str


class CompactRequest(LenientModel):
    """A conversation to be made shorter; fields that are unknown here have no effect."""

    model: str
    input: str | Annotated[list[InputItem], Field(max_length=MAX_ITEMS)] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None


class ResponsesRequest(LocalFields, ThinkingFields, ConstraintFields):
    """Parameters of a response."""

    model: str
    input: str | Annotated[list[InputItem], Field(max_length=MAX_ITEMS)] | None = Field(
        None,
        description="May be left out after a ``previous_response_id`` or in a ``conversation``.",
    )
    instructions: str | None = None
    tools: Annotated[list[AnyTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Annotated[ReasoningOptions, BeforeValidator(_as_options)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Stops | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="With ``auto``, the oldest items of a too long conversation are left out."
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

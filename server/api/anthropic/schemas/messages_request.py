"""The bodies of ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from server.api.anthropic.schemas.blocks import (
    MAX_BLOCKS,
    MAX_MESSAGES,
    Block,
    Texts,
)
from server.api.constraint_fields import ConstraintFields
from server.api.generation_fields import LocalFields, Stops, ThinkingFields, usual_effort
from server.api.spellings import respell
from server.api.text_parts import as_parts
from server.api.tool_forms import flat_function, usual_choice
from server.api.validation import Opaque, Respelled, WireModel, whole

# Choices: agents with many MCP servers bring a few hundred tools.
MAX_TOOLS = 512

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class Turn(WireModel):
    """A message; ``content`` may only be absent in a system message that has other fields.

    A system message that says ``clear_at: next_user_message`` holds until the user speaks again.
    """

    role: Literal["user", "assistant", "system"]
    content: Annotated[
        str | Annotated[list[Block], Field(max_length=MAX_BLOCKS)] | None,
        BeforeValidator(as_parts),
    ] = None
    clear_at: Literal["next_user_message", "never"] | None = None


class FunctionTool(WireModel):
    """A tool that the client runs."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = Field(
        None, description="The model knows it only once a tool_reference names it."
    )


class HostedTool(Opaque):
    """A tool that Anthropic runs, or whose definition its models know: not offered here."""

    type: str


def _tool_kind(tool: Any) -> str:
    stated = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
    return "hosted" if isinstance(stated, str) and stated != "custom" else "function"


def _usual_tool(tool: object) -> object:
    """A function in another API's form as one of this endpoint."""
    if not isinstance(tool, dict) or tool.get("type") == "custom":
        return tool
    flat = flat_function(tool, "input_schema")
    if flat.get("type") == "function":
        return {name: value for name, value in flat.items() if name != "type"}
    return flat


Tool = Annotated[
    Annotated[FunctionTool, Tag("function")] | Annotated[HostedTool, Tag("hosted")],
    Discriminator(_tool_kind),
    BeforeValidator(_usual_tool),
]


class ToolChoice(WireModel):
    """How the model must use the tools; ``name`` with the type ``tool`` only."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


def _own_choice(choice: object) -> object:
    """A choice in another API's words, as one of this endpoint."""
    if isinstance(choice, dict) and choice.get("type") in _CHOICES:
        return choice
    match usual_choice(choice):
        case "none" | "auto" | "required" as mode:
            return {"type": "any" if mode == "required" else mode}
        case {"type": "function", "name": name}:
            return {"type": "tool", "name": name}
        case usual:
            return usual


# No set: what is sent as a type may not be hashable.
_CHOICES = ("auto", "any", "tool", "none")


class Thinking(WireModel):
    """Whether the model thinks: any type but ``disabled`` lets it.

    With ``display: omitted`` the thoughts are only in the signatures, from which they come back.
    """

    type: str
    display: str | None = None
    budget_tokens: Annotated[int, Field(ge=0), BeforeValidator(whole)] | None = Field(
        None, description="The most tokens of reasoning."
    )


def _as_thinking(value: object) -> object:
    """A switch or a word alone, as other servers have it."""
    if isinstance(value, bool):
        return {"type": "enabled" if value else "disabled"}
    return {"type": value} if isinstance(value, str) else value


class JsonFormat(WireModel):
    """JSON that matches a schema."""

    model_config = ConfigDict(protected_namespaces=())

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(WireModel):
    """How much effort goes into an answer, and its format."""

    effort: Annotated[str | None, BeforeValidator(usual_effort)] = None
    format: JsonFormat | None = None


class Conversation(ThinkingFields):
    """What makes the prompt."""

    model: str
    messages: Annotated[list[Turn], Field(min_length=1, max_length=MAX_MESSAGES)]
    system: Texts | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Annotated[ToolChoice, BeforeValidator(_own_choice)] | None = None
    thinking: Annotated[Thinking, BeforeValidator(_as_thinking)] | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(Conversation, LocalFields, ConstraintFields):
    """Parameters of a message."""

    max_tokens: Annotated[int, Field(ge=0)]
    stream: bool | None = None
    stop_sequences: Stops | None = None
    output_format: JsonFormat | None = Field(
        None, description="The earlier name of ``output_config.format``."
    )

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under our names for what other servers name differently."""
        return respell(body, cls, {"stop": "stop_sequences"})


class CountTokensRequest(Conversation):
    """A conversation whose tokens are to be counted."""

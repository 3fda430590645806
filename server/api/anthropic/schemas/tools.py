"""Tools of a request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from server.api.tool_forms import ToolName, flat_function, usual_choice
from server.api.validation import Opaque, WireModel

# Choices: agents with many MCP servers bring a few hundred tools.
MAX_TOOLS = 512


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


AnyTool = Annotated[
    Annotated[FunctionTool, Tag("function")] | Annotated[HostedTool, Tag("hosted")],
    Discriminator(_tool_kind),
    BeforeValidator(_usual_tool),
]


class ChangedTool(WireModel):
    """A tool that a conversation adds or removes: the name of one, or a whole definition."""

    type: str | None = None
    name: str | None = None
    definition: AnyTool | None = None


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


class OtherChoice(Opaque):
    """A choice in words of another API that mean nothing here, like a tool that its server runs."""

    type: str


# No set: what is sent as a type may not be hashable.
_CHOICES = ("auto", "any", "tool", "none")


def _choice_kind(choice: object) -> str | None:
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in _CHOICES:
        return "own"
    return "other" if isinstance(kind, str) and kind else None


Choice = Annotated[
    Annotated[ToolChoice, Tag("own")] | Annotated[OtherChoice, Tag("other")],
    Discriminator(
        _choice_kind,
        custom_error_type="tool_choice",
        custom_error_message="Input should be an object with a type",
    ),
    BeforeValidator(_own_choice),
]

"""Tools of a request, and how it wants them used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from server.api.openai.responses.schemas.lenient import LenientModel, type_of
from server.api.tool_forms import ToolName, flat_function, usual_choice

MAX_TOOLS = 512
"""A choice: agents with several servers of tools bring some hundreds."""


class FunctionTool(LenientModel):
    """A function; ``parameters`` is a JSON Schema."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class TextInput(LenientModel):
    """Any text."""

    type: Literal["text"]


class GrammarInput(LenientModel):
    """Text that matches a grammar."""

    type: Literal["grammar"]
    syntax: Literal["lark", "regex"]
    definition: str


class CustomTool(LenientModel):
    """A free-form tool: its input is text, not JSON."""

    type: Literal["custom"]
    name: ToolName
    description: str | None = None
    format: Annotated[TextInput | GrammarInput, Field(discriminator="type")] | None = None


class OtherTool(LenientModel):
    """A tool that OpenAI hosts, and this server does not have."""

    type: str | None = None


_KNOWN = {"function", "custom", "namespace"}


def _kind(tool: object) -> str | None:
    kind = type_of(tool)
    if kind in _KNOWN:
        return kind
    return "other" if isinstance(tool, dict | OtherTool) else None


class NamespaceTool(LenientModel):
    """Functions and free-form tools under a common name."""

    type: Literal["namespace"]
    name: ToolName
    description: str | None = None
    tools: Annotated[list[InnerTool], Field(max_length=MAX_TOOLS)]


def _usual_tool(tool: object) -> object:
    """A function in another API's form as one of this endpoint."""
    if not isinstance(tool, dict):
        return tool
    flat = flat_function(tool)
    if "name" in flat and flat.get("type") is None:
        return {**flat, "type": "function"}
    return flat


_NO_TOOL = "Input should be an object that describes a tool"

InnerTool = Annotated[
    Annotated[FunctionTool, Tag("function")]
    | Annotated[CustomTool, Tag("custom")]
    | Annotated[OtherTool, Tag("other")],
    Discriminator(
        lambda tool: "other" if _kind(tool) == "namespace" else _kind(tool),
        custom_error_type="tool_type",
        custom_error_message=_NO_TOOL,
    ),
    BeforeValidator(_usual_tool),
]

AnyTool = Annotated[
    Annotated[FunctionTool, Tag("function")]
    | Annotated[CustomTool, Tag("custom")]
    | Annotated[NamespaceTool, Tag("namespace")]
    | Annotated[OtherTool, Tag("other")],
    Discriminator(_kind, custom_error_type="tool_type", custom_error_message=_NO_TOOL),
    BeforeValidator(_usual_tool),
]


Described = FunctionTool | CustomTool | NamespaceTool
"""A tool that this server can offer, or several under one name."""

Mode = Literal["none", "auto", "required"]


class NamedChoice(LenientModel):
    """Call this tool."""

    type: Literal["function", "custom"]
    name: ToolName
    namespace: str | None = None


class AllowedTool(LenientModel):
    """One of the tools that may be called in this turn; one without a name is a hosted tool."""

    type: str
    name: ToolName | None = None
    namespace: str | None = None


class AllowedChoice(LenientModel):
    """The tools that may be called in this turn, out of those offered."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Field(min_length=1, max_length=MAX_TOOLS)]


class OtherChoice(LenientModel):
    """Call a tool that OpenAI hosts."""

    type: str


_CHOICES = {"function": "named", "custom": "named", "allowed_tools": "allowed"}


def _choice_kind(choice: object) -> str | None:
    if isinstance(choice, str):
        return "mode"
    kind = type_of(choice)
    return None if kind is None else _CHOICES.get(kind, "other")


Choice = Annotated[
    Annotated[Mode, Tag("mode")]
    | Annotated[NamedChoice, Tag("named")]
    | Annotated[AllowedChoice, Tag("allowed")]
    | Annotated[OtherChoice, Tag("other")],
    Discriminator(
        _choice_kind,
        custom_error_type="tool_choice",
        custom_error_message="Input should be a string or an object with a type",
    ),
    BeforeValidator(usual_choice),
]

NamespaceTool.model_rebuild()

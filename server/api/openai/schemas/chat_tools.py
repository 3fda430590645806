"""Tools of a chat completion, and how a request wants them used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from server.api.validation import Opaque, WireModel

MAX_TOOLS = 128

# OpenAI's rule has no dots and 64 characters; MCP's tools may have both and 128.
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class FunctionDefinition(WireModel):
    """A function that the model may call; ``parameters`` is a JSON Schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(WireModel):
    """A tool that is a function."""

    type: Literal["function"] = "function"
    function: FunctionDefinition


class FlatFunctionTool(FunctionDefinition):
    """A function in the form of the Responses API, which clients also send here."""

    type: Literal["function"] = "function"


class TextInput(WireModel):
    """Any text."""

    type: Literal["text"]


class GrammarDefinition(WireModel):
    """A grammar in one of two notations."""

    syntax: Literal["lark", "regex"]
    definition: str


class GrammarInput(WireModel):
    """Text that matches a grammar."""

    type: Literal["grammar"]
    grammar: GrammarDefinition


class CustomDefinition(WireModel):
    """A free-form tool: its input is text, not JSON."""

    name: FunctionName
    description: str | None = None
    format: Annotated[TextInput | GrammarInput, Field(discriminator="type")] | None = None


class CustomTool(WireModel):
    """A tool that takes text."""

    type: Literal["custom"]
    custom: CustomDefinition


class OtherTool(Opaque):
    """A tool that some server runs itself, and this one does not have: left out, and named."""

    type: str | None = None


def _kind(tool: object) -> str | None:
    if not isinstance(tool, dict):
        return None
    kind = tool.get("type")
    if kind is None and not {"function", "name"} & tool.keys():
        return "other"
    if kind in {None, "function"}:
        return "flat" if "name" in tool and "function" not in tool else "function"
    if not isinstance(kind, str):
        return None
    return "custom" if kind == "custom" else "other"


AnyTool = Annotated[
    Annotated[FunctionTool, Tag("function")]
    | Annotated[FlatFunctionTool, Tag("flat")]
    | Annotated[CustomTool, Tag("custom")]
    | Annotated[OtherTool, Tag("other")],
    Discriminator(
        _kind,
        custom_error_type="tool_type",
        custom_error_message="Input should be an object that describes a tool",
    ),
]


def left_out(tools: Iterable[object]) -> Iterator[str]:
    """The places of those of a request's ``tools`` that are not offered."""
    for index, tool in enumerate(tools):
        if isinstance(tool, OtherTool):
            yield f"tools[{index}]" + (f" ({tool.type})" if tool.type else "")


class ToolRef(WireModel):
    """A tool by its name."""

    name: FunctionName


class NamedFunction(WireModel):
    """A function by its name: the one to call, or one that may be called."""

    type: Literal["function"]
    function: ToolRef


class NamedCustomTool(WireModel):
    """A free-form tool by its name: the one to call, or one that may be called."""

    type: Literal["custom"]
    custom: ToolRef


NamedTool = Annotated[NamedFunction | NamedCustomTool, Field(discriminator="type")]


class AllowedTools(WireModel):
    """The tools that may be called in this turn, out of those defined."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolsChoice(WireModel):
    """Restricts the tools of this turn."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _usual_choice(choice: object) -> object:
    """A choice in the words of the Responses API or of Anthropic's, as one of this endpoint."""
    if not isinstance(choice, dict):
        return choice
    kind = choice.get("type")
    match choice:
        case {"type": "auto" | "none" | "required" | "any" as mode}:
            return "required" if mode == "any" else mode
        case {"type": "function" | "tool" | "custom", "name": name} if kind not in choice:
            kind = "function" if kind == "tool" else kind
            return {"type": kind, kind: {"name": name}}
        case {"function": _} if "type" not in choice:
            return {"type": "function", **choice}
        case {"type": "allowed_tools", "mode": mode, "tools": list() as tools}:
            allowed = {"mode": mode, "tools": [_usual_choice(tool) for tool in tools]}
            return {"type": "allowed_tools", "allowed_tools": allowed}
        case _:
            return choice


ToolChoice = Annotated[
    Literal["none", "auto", "required"]
    | Annotated[
        NamedFunction | NamedCustomTool | AllowedToolsChoice,
        Field(discriminator="type"),
    ],
    BeforeValidator(_usual_choice),
]
FunctionChoice = Literal["none", "auto"] | ToolRef
"""The old form of a choice, beside ``functions``."""

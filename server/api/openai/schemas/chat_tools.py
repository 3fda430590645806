"""Tools of a chat completion, and how a request wants them used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from server.api.tool_forms import ToolName, flat_function, usual_choice, with_schema
from server.api.validation import Opaque, WireModel

MAX_TOOLS = 128


class FunctionDefinition(WireModel):
    """A function that the model may call; ``parameters`` is a JSON Schema."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


OldFunction = Annotated[
    FunctionDefinition,
    BeforeValidator(lambda given: with_schema(given) if isinstance(given, dict) else given),
]
"""An item of ``functions``, the old form of tools."""


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

    name: ToolName
    description: str | None = None
    format: Annotated[TextInput | GrammarInput, Field(discriminator="type")] | None = None


class CustomTool(WireModel):
    """A tool that takes text."""

    type: Literal["custom"]
    custom: CustomDefinition


class OtherTool(Opaque):
    """A tool that some server runs itself, and this one does not have: left out, and named."""

    type: str | None = None


def _usual_tool(tool: object) -> object:
    """A tool whose schema has the name that it has here."""
    if not isinstance(tool, dict):
        return tool
    if isinstance(function := tool.get("function"), dict):
        return {**tool, "function": with_schema(function)}
    return flat_function(tool) if "name" in tool else tool


def _kind(tool: object) -> str | None:
    if not isinstance(tool, dict):
        return None
    kind = tool.get("type")
    if kind is None and not {"function", "name"} & tool.keys():
        return "other"
    if kind in (None, "function"):
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
    BeforeValidator(_usual_tool),
]


class ToolRef(WireModel):
    """A tool by its name."""

    name: ToolName


class NamedFunction(WireModel):
    """A function by its name: the one to call, or one that may be called."""

    type: Literal["function"]
    function: ToolRef


class NamedCustomTool(WireModel):
    """A free-form tool by its name: the one to call, or one that may be called."""

    type: Literal["custom"]
    custom: ToolRef


class OtherChoice(Opaque):
    """A tool that some server runs itself: the one to call, or one that may be called."""

    type: str


def _own_choice(choice: object) -> object:
    """A choice in another API's words, as one of this endpoint."""
    # A list, since what is sent as a type may not be hashable.
    if isinstance(choice, dict) and choice.get("type") in list(choice):
        return choice
    match usual_choice(choice):
        case {"type": "function" | "custom" as kind, "name": name}:
            return {"type": kind, kind: {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": list() as tools}:
            allowed = {"mode": mode, "tools": tools}
            return {"type": "allowed_tools", "allowed_tools": allowed}
        case usual:
            return usual


def _named_kind(choice: object) -> str | None:
    kind = choice.get("type") if isinstance(choice, dict) else None
    if not isinstance(kind, str) or not kind:
        return None
    return kind if kind in {"function", "custom"} else "other"


NamedTool = Annotated[
    Annotated[NamedFunction, Tag("function")]
    | Annotated[NamedCustomTool, Tag("custom")]
    | Annotated[OtherChoice, Tag("other")],
    Discriminator(
        _named_kind,
        custom_error_type="tool_name",
        custom_error_message="Input should be an object with a type",
    ),
    BeforeValidator(_own_choice),
]


class AllowedTools(WireModel):
    """The tools that may be called in this turn, out of those defined."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolsChoice(WireModel):
    """Restricts the tools of this turn."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


Mode = Literal["none", "auto", "required"]


def _choice_kind(choice: object) -> str | None:
    if isinstance(choice, str):
        return "mode"
    kind = choice.get("type") if isinstance(choice, dict) else None
    return "allowed_tools" if kind == "allowed_tools" else _named_kind(choice)


ToolChoice = Annotated[
    Annotated[Mode, Tag("mode")]
    | Annotated[NamedFunction, Tag("function")]
    | Annotated[NamedCustomTool, Tag("custom")]
    | Annotated[AllowedToolsChoice, Tag("allowed_tools")]
    | Annotated[OtherChoice, Tag("other")],
    Discriminator(
        _choice_kind,
        custom_error_type="tool_choice",
        custom_error_message="Input should be a string or an object with a type",
    ),
    BeforeValidator(_own_choice),
]
FunctionChoice = Literal["none", "auto"] | ToolRef
"""The old form of a choice, beside ``functions``."""


def wants_others(tools: Sequence[object], choice: object) -> bool:
    """Whether ``choice`` wants a tool called, and only those left out can be meant."""
    others = [tool for tool in tools if isinstance(tool, OtherTool)]
    match choice:
        case OtherChoice():
            return True
        case "required":
            return bool(others) and len(others) == len(tools)
        case NamedFunction(function=ToolRef(name=name)):
            named = [tool for tool in tools if _name(tool) == name]
            return bool(named) and all(isinstance(tool, OtherTool) for tool in named)
        case AllowedToolsChoice(allowed_tools=AllowedTools(mode="required", tools=allowed)):
            return all(isinstance(tool, OtherChoice) for tool in allowed)
    return False


def _name(tool: object) -> object:
    match tool:
        case FunctionTool(function=definition) | CustomTool(custom=definition):
            return definition.name
        case FunctionDefinition(name=name):
            return name
        case OtherTool(model_extra={"name": name}):
            return name
    return None


def left_out(tools: Sequence[object], choice: object) -> Iterator[str]:
    """The places of those of a request's ``tools`` that are not offered.

    A ``choice`` that wants one of them called is left out as well, and so is each in a list of
    those that may be.
    """
    for index, tool in enumerate(tools):
        if isinstance(tool, OtherTool):
            yield f"tools[{index}]" + (f" ({tool.type})" if tool.type else "")
    if isinstance(choice, OtherChoice):
        yield f"tool_choice ({choice.type})"
    elif wants_others(tools, choice):
        yield "tool_choice"
    if isinstance(choice, AllowedToolsChoice):
        for index, allowed in enumerate(choice.allowed_tools.tools):
            if isinstance(allowed, OtherChoice):
                yield f"tool_choice.allowed_tools.tools[{index}] ({allowed.type})"

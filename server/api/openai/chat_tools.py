"""The tools of a chat completion, canonical, in the three forms in which clients write them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from server.api.openai.schemas import chat_tools as wire
from server.api.openai.schemas.chat_request import ConversationFields
from server.core.errors import InvalidRequest, Locator, path_text
from server.core.request import Constraint, Tool, ToolChoice


class OfferedTools(NamedTuple):
    """The tools that a request offers, where the body has each, and how they are to be used."""

    tools: list[Tool]
    places: list[Locator]
    choice: ToolChoice


def offered_tools(body: ConversationFields) -> OfferedTools:
    """The tools of ``body``.

    Raises InvalidRequest where they, and the choice among them, contradict each other.
    """
    if body.functions is not None and body.tools is not None:
        raise InvalidRequest("tools and functions exclude each other.", at=("functions",))
    found: dict[str, tuple[Tool, Locator]] = {}
    for tool, place in _tools(body):
        if tool.name in found:
            raise InvalidRequest(
                f"{path_text(place)}: two tools are called {tool.name}.", at=place[:1]
            )
        found[tool.name] = (tool, place)
    choice, allowed = _choice(body, found.keys())
    kept = [each for name, each in found.items() if allowed is None or name in allowed]
    return OfferedTools([tool for tool, _ in kept], [place for _, place in kept], choice)


def _tools(body: ConversationFields) -> Iterator[tuple[Tool, Locator]]:
    for index, definition in enumerate(body.functions or []):
        yield _function(definition), ("functions", index)
    for index, tool in enumerate(body.tools or []):
        match tool:
            case wire.FunctionTool():
                yield _function(tool.function), ("tools", index)
            case wire.FlatFunctionTool():
                yield _function(tool), ("tools", index)
            case wire.CustomTool():
                yield _custom(tool.custom), ("tools", index)


def _function(definition: wire.FunctionDefinition) -> Tool:
    return Tool(
        name=definition.name,
        description=definition.description,
        parameters=definition.parameters,
        strict=bool(definition.strict),
    )


def _custom(definition: wire.CustomDefinition) -> Tool:
    grammar = None
    if isinstance(definition.format, wire.GrammarInput):
        stated = definition.format.grammar
        grammar = Constraint(kind=stated.syntax, body=stated.definition)
    return Tool(
        name=definition.name, description=definition.description, kind="custom", grammar=grammar
    )


class _Choice(NamedTuple):
    """How the tools are used; ``allowed`` are the names of those that may be, if not all may."""

    choice: ToolChoice
    allowed: set[str] | None = None


def _choice(body: ConversationFields, names: Collection[str]) -> _Choice:
    parallel = body.parallel_tool_calls is not False
    field = "tool_choice"
    stated: wire.ToolChoice | wire.FunctionChoice | None = body.tool_choice
    if body.functions is not None or body.function_call is not None:
        # An answer has one `function_call`.
        field, stated, parallel = "function_call", body.function_call, False
    unheeded = wire.wants_others(body.tools or [], stated)
    match stated:
        case wire.AllowedToolsChoice(allowed_tools=allowed):
            mine = [tool for tool in allowed.tools if not isinstance(tool, wire.OtherChoice)]
            chosen = {_defined(_name(tool), names, field) for tool in mine}
            mode = "auto" if unheeded else allowed.mode
            return _Choice(ToolChoice(mode=mode, parallel=parallel), chosen)
        case wire.OtherChoice() | None:
            return _Choice(ToolChoice(parallel=parallel))
        case _ if unheeded:
            return _Choice(ToolChoice(parallel=parallel))
        case "none" | "auto" | "required":
            if stated == "required" and not names:
                raise InvalidRequest("tool_choice: there are no tools.", at=(field,))
            return _Choice(ToolChoice(mode=stated, parallel=parallel))
        case _:
            name = _defined(_name(stated), names, field)
            return _Choice(ToolChoice(mode="named", name=name, parallel=parallel))


def _name(tool: wire.NamedFunction | wire.NamedCustomTool | wire.ToolRef) -> str:
    match tool:
        case wire.NamedFunction():
            return tool.function.name
        case wire.NamedCustomTool():
            return tool.custom.name
        case wire.ToolRef():
            return tool.name


def _defined(name: str, names: Collection[str], field: str) -> str:
    if name not in names:
        raise InvalidRequest(f"{field}: there is no tool {name}.", at=(field,))
    return name

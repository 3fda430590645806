"""The forms in which clients write tools, choices among them and calls, as one form.

A client of one API sends another's form when people only change its address, or pass on what an
MCP server or a framework gave them. Each family takes all of them and turns them into its own.
Nothing is lost: fields without a meaning stay, so that the answer names them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any

from pydantic import Field

ToolName = Annotated[str, Field(min_length=1, max_length=256)]
"""The rules of both APIs are stricter than what gateways of MCP servers call tools."""

_SCHEMA_NAMES = ("parameters", "input_schema", "inputSchema")
"""OpenAI's, Anthropic's and MCP's."""

_ARGUMENT_NAMES = ("arguments", "args", "input")
"""OpenAI's, LangChain's and Anthropic's."""

# No set: what is sent as a type may not be hashable.
_FUNCTION_KINDS = (None, "function", "tool_call", "tool_use")


def flat_function(tool: dict[str, Any], schema_name: str = "parameters") -> dict[str, Any]:
    """A function as one flat object, with its schema under ``schema_name``; others as they are.

    Args:
        tool: A tool of a request: nested as in chat completions, or flat as in the Responses API,
            Anthropic's or MCP's.
        schema_name: The name that the family has for the schema of the arguments.
    """
    kind, nested = tool.get("type"), tool.get("function")
    if kind not in (None, "function") and not (kind == "custom" and _has_schema(tool)):
        return tool
    if isinstance(nested, dict) and "name" not in tool:
        outer = {name: value for name, value in tool.items() if name != "function"}
        tool = {**outer, **nested}
    if kind == "custom":
        tool = {**tool, "type": "function"}
    return with_schema(tool, schema_name)


def with_schema(definition: dict[str, Any], schema_name: str = "parameters") -> dict[str, Any]:
    """A function's definition with its schema under ``schema_name``.

    An empty list is an empty object, as PHP writes it, and text is the JSON of one.
    """
    for name in _SCHEMA_NAMES:
        if definition.get(name) is not None and definition.get(schema_name) is None:
            others = {key: each for key, each in definition.items() if key != name}
            definition = {**others, schema_name: definition[name]}
    schema = definition.get(schema_name)
    if isinstance(schema, str):
        with suppress(ValueError):  # the schema of the body says what is wrong
            schema = json.loads(schema)
    return definition if schema is None else {**definition, schema_name: schema or {}}


def _has_schema(tool: dict[str, Any]) -> bool:
    return any(isinstance(tool.get(name), dict) for name in _SCHEMA_NAMES)


def usual_choice(choice: object) -> object:
    """A choice of tools in the Responses API's form: a word, or an object with type and name."""
    match choice:
        case "any":
            return "required"
        case {"type": "auto" | "none" | "required" | "any" as mode}:
            return usual_choice(mode)
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": mode, "tools": list() as tools},
        } | {"type": "allowed_tools", "mode": mode, "tools": list() as tools}:
            return {"type": "allowed_tools", "mode": mode, "tools": list(map(usual_choice, tools))}
    return _named_tool(choice) or choice


def _named_tool(choice: object) -> dict[str, Any] | None:
    match choice:
        case {"function": {"name": str(name)}} | {"type": "tool", "name": str(name)}:
            return {"type": "function", "name": name}
        case {"custom": {"name": str(name)}}:
            return {"type": "custom", "name": name}
        case {"name": str(name), **others} if not others:
            return {"type": "function", "name": name}
    return None


def usual_call(call: object) -> object:
    """A past call in the form of chat completions."""
    if not isinstance(call, dict):
        return call
    if isinstance(function := call.get("function"), dict):
        return {**call, "function": _usual_arguments(function)}
    if "name" not in call or call.get("type") not in _FUNCTION_KINDS:
        return call
    own = {"name", *_ARGUMENT_NAMES}
    function = _usual_arguments({name: each for name, each in call.items() if name in own})
    others = {name: each for name, each in call.items() if name not in {*own, "type"}}
    return {**others, "type": "function", "function": function}


def _usual_arguments(function: dict[str, Any]) -> dict[str, Any]:
    """The function of a call, with its arguments under OpenAI's name, as text or an object."""
    for name in _ARGUMENT_NAMES[1:]:
        if name in function and "arguments" not in function:
            others = {key: each for key, each in function.items() if key != name}
            function = {**others, "arguments": function[name]}
    arguments = function.get("arguments")
    if arguments == []:
        return {**function, "arguments": {}}
    if isinstance(arguments, list):
        return {**function, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return function

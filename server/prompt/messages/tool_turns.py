"""Tools, calls and results of a conversation, in the template's shape or in words."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from server.core.errors import PLACE, ConversationError
from server.core.reply_format import Calls
from server.core.request import Message, Tool, ToolCall
from server.prompt.messages.authored_calls import authored_calls
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.parts import joined, message_text, parts_of, text_of
from server.prompt.template.authored import by_server, joined_texts
from server.prompt.template.content import Part, text_part
from server.reply.builtin_formats import builtin_tables
from server.reply.writer import write_calls

GENERIC_CALLS = msgspec.convert(builtin_tables()["hermes"]["calls"], Calls)
"""How calls are written if the template cannot express them."""

_BRANCHES = {"anyOf", "oneOf", "allOf", "$ref"}
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Turn(msgspec.Struct, frozen=True):
    """One message for the template, and the index of the request's message it came from.

    Its content is a list of parts; beside calls it may be None or absent, as the template wants.
    """

    source: int
    message: dict[str, Any]

    @property
    def role(self) -> str:
        """The message's role."""
        role: str = self.message["role"]
        return role


def merged(first: Turn, second: Turn) -> Turn:
    """Two neighbours as one turn, in the role of the first."""
    message = {**first.message, **second.message, "role": first.role}
    message["content"] = joined(first.message["content"], second.message["content"])
    thoughts = [
        turn.message["reasoning_content"]
        for turn in (first, second)
        if "reasoning_content" in turn.message
    ]
    if thoughts:
        message["reasoning_content"] = "\n\n".join(thoughts)
    return Turn(max(first.source, second.source), message)


class Exchange(msgspec.Struct, frozen=True):
    """An assistant message with calls and the tool messages that answer them.

    Attributes:
        index: The assistant message's index in the request.
        message: The assistant message.
        results: Index and message of each call's result; None for a call without one.
        first_call: The number of calls in the conversation before these.
    """

    index: int
    message: Message
    results: list[tuple[int, Message] | None]
    first_call: int

    @classmethod
    def matched(
        cls, index: int, message: Message, results: list[tuple[int, Message]], first_call: int
    ) -> Exchange:
        """Match each result with its call; one without an id belongs to the first open call.

        Raises:
            ConversationError: A result belongs to no call, or to one that already has a result.
        """
        placed: list[tuple[int, Message] | None] = [None] * len(message.tool_calls)
        for result_index, result in results:
            waiting = [place for place, found in enumerate(placed) if found is None]
            place = next(
                (
                    place
                    for place in waiting
                    if result.tool_call_id in {None, "", message.tool_calls[place].id}
                ),
                None,
            )
            if place is None:
                raise orphan(result_index, result, [message.tool_calls[n].id for n in waiting])
            placed[place] = (result_index, result)
        return cls(index, message, placed, first_call)


def orphan(index: int, message: Message, waiting: list[str]) -> ConversationError:
    """The error about a tool message that answers none of the ``waiting`` calls."""
    if waiting:
        problem = (
            f"answers the tool call {message.tool_call_id!r}, but the calls waiting for a result "
            f"are {', '.join(map(repr, waiting))}"
        )
    else:
        problem = "is a tool result, but no tool call before it waits for one"
    return ConversationError(f"{PLACE} {problem}.", at=("messages", index))


def exchange_turns(
    exchange: Exchange, capabilities: Capabilities, calls_syntax: Calls
) -> list[Turn]:
    """The calls and their results, in the template's own form as far as it has one.

    Results are put in the order of their calls: many templates show no ids, so a model can only
    tell them apart by their order. ``calls_syntax`` is the form of calls that the template would
    leave out, and of those whose arguments are no JSON object: an answer may have been cut off.
    """
    if not capabilities.tool_calls:
        return _in_words(exchange, capabilities, calls_syntax)
    if not capabilities.free_arguments and any(
        parsed_object(call.arguments or "{}") is None for call in exchange.message.tool_calls
    ):
        words = msgspec.structs.replace(capabilities, tool_results=False)
        return _in_words(exchange, words, calls_syntax)
    content = parts_of(exchange.message)
    calls = [_native_call(exchange, place, capabilities) for place in range(len(exchange.results))]
    results = [_result(exchange, place, capabilities) for place in range(len(exchange.results))]
    turns = []
    if text_of(content) and not capabilities.content_with_calls:
        turns.append(Turn(exchange.index, {"role": "assistant", "content": content}))
        content = []
    groups = (
        [range(len(calls))] if capabilities.parallel_calls else [(n,) for n in range(len(calls))]
    )
    for number, group in enumerate(groups):
        message = {"role": "assistant"} | _beside_calls([] if number else content, capabilities)
        if exchange.message.reasoning_content and not number:
            message["reasoning_content"] = exchange.message.reasoning_content
        message["tool_calls"] = [calls[place] for place in group]
        turns.append(Turn(exchange.index, message))
        turns += [turn for place in group if (turn := results[place]) is not None]
    return turns


def tool_schema(tool: Tool) -> dict[str, Any]:
    """A tool in OpenAI's form, which templates are written for, without absent fields."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    return {"type": "function", "function": function}


def native_tool(tool: Tool, capabilities: Capabilities) -> dict[str, Any]:
    """A tool for the template, with empty descriptions and properties if it needs some."""
    schema = tool_schema(tool)
    function = schema["function"]
    if not capabilities.bare_tools:
        function["description"] = tool.description or ""
        function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    if function.get("parameters") and not capabilities.bare_parameters:
        function["parameters"] = _with_properties(function["parameters"])
    return schema


def _with_properties(parameters: dict[str, Any]) -> dict[str, Any]:
    properties = parameters.get("properties", {})
    # Empty properties would hide the branches from the model.
    if not isinstance(properties, dict) or parameters.keys() & _BRANCHES:
        return parameters
    described = {
        name: {"description": "", **schema} if isinstance(schema, dict) else schema
        for name, schema in properties.items()
    }
    return {**parameters, "properties": described}


def describe_tools(tools: list[Tool], calls_syntax: Calls) -> str:
    """The tools and how to call them, as text for the system message."""
    # Without white space and the wrapper that all have, they are a quarter fewer tokens. Signatures
    # as in code take a third fewer still, but small models then choose the right tool less often:
    # docs/benchmarks.md ("An agent's session").
    schemas = "\n".join(
        json.dumps(tool_schema(tool)["function"], ensure_ascii=False, separators=(",", ":"))
        for tool in tools
    )
    sample = ToolCall(id="ID", name="NAME", arguments='{"KEY": "VALUE"}')
    how = (
        "To call the function NAME with the argument KEY, write exactly:\n"
        f"{write_calls([sample], calls_syntax)}"
    )
    pieces = (
        by_server("You can call functions. They are described here, each by one JSON object:"),
        *(by_server("<tools>"), schemas, by_server(f"</tools>\n\n{how}")),
    )
    return joined_texts("\n", pieces)


def _in_words(exchange: Exchange, capabilities: Capabilities, calls_syntax: Calls) -> list[Turn]:
    message = exchange.message
    calls = [
        msgspec.structs.replace(call, arguments=call.arguments or "{}")
        for call in message.tool_calls
    ]
    written = authored_calls(calls, calls_syntax)
    text = joined_texts("\n", filter(None, (message_text(message), written)))
    spoken: dict[str, Any] = {"role": "assistant", "content": [text_part(text)]}
    if message.reasoning_content:
        spoken["reasoning_content"] = message.reasoning_content
    results = [_result(exchange, place, capabilities) for place in range(len(exchange.results))]
    return [Turn(exchange.index, spoken), *(turn for turn in results if turn is not None)]


def _native_call(exchange: Exchange, place: int, capabilities: Capabilities) -> dict[str, Any]:
    call = exchange.message.tool_calls[place]
    arguments: Any = call.arguments or "{}"
    if capabilities.object_arguments:
        parsed = parsed_object(arguments)
        arguments = arguments if parsed is None else parsed
    native: dict[str, Any] = {
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
    identity = _call_id(exchange, place, capabilities)
    return {"id": identity, **native} if identity else native


def parsed_object(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is, or None."""
    try:
        arguments = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _call_id(exchange: Exchange, place: int, capabilities: Capabilities) -> str:
    """The call's id in a form that the template takes; the request's own if it takes any."""
    call = exchange.message.tool_calls[place]
    if capabilities.free_call_ids or not call.id:
        return call.id
    if not capabilities.short_call_ids:
        return f"functions.{call.name}:{exchange.first_call + place}"
    if len(call.id) == 9 and call.id.isascii() and call.id.isalnum():
        return call.id
    digest = hashlib.sha256(call.id.encode()).digest()
    return "".join(_BASE62[byte % len(_BASE62)] for byte in digest[:9])


def _beside_calls(content: list[Part], capabilities: Capabilities) -> dict[str, Any]:
    if text_of(content) or capabilities.empty_content_with_calls:
        return {"content": content}
    return {"content": None} if capabilities.null_content_with_calls else {}


def _result(exchange: Exchange, place: int, capabilities: Capabilities) -> Turn | None:
    found = exchange.results[place]
    if found is None:
        return None
    index, message = found
    call = exchange.message.tool_calls[place]
    text = message_text(message)
    if not capabilities.tool_results:
        words = joined_texts("", [*_opening(exchange, call), text, by_server("\n</tool_response>")])
        return Turn(index, {"role": "user", "content": [text_part(words)]})
    shaped: dict[str, Any] = {"role": "tool"}
    identity = _call_id(exchange, place, capabilities) or message.tool_call_id
    if identity:
        shaped["tool_call_id"] = identity
    if message.name is not None or not capabilities.unnamed_results:
        shaped["name"] = message.name or call.name
    shaped["content"] = [text_part(text)]
    return Turn(index, shaped)


def _opening(exchange: Exchange, call: ToolCall) -> list[str]:
    """What stands before a result in words: the name of its call where there are several calls."""
    if len(exchange.results) == 1:
        return [by_server("<tool_response>\n")]
    return [by_server('<tool_response name="'), call.name, by_server('">\n')]

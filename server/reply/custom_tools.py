"""Free-form tools for models that know only functions.

Such a tool is offered as a function whose one parameter is the input, which its grammar governs in
every dialect. A call of it is turned back
while it streams: the string in its arguments is the input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from server.core.reply import (
    ReplyEvent,
    ToolCallArguments,
    ToolCallInput,
    ToolCallStart,
)
from server.core.request import ChatPrompt, Message, Tool, ToolCall

INPUT = "input"
_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {INPUT: {"type": "string"}},
    "required": [INPUT],
}
_OPENING = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
# An escape that is not whole yet, or the first half of a pair.
_INCOMPLETE_ESCAPE = re.compile(
    r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?$"
)


def as_functions(prompt: ChatPrompt) -> ChatPrompt:
    """``prompt`` with its free-form tools, and their calls, as functions."""
    tools = [_function(tool) for tool in prompt.tools]
    messages = [_with_function_calls(message) for message in prompt.messages]
    return msgspec.structs.replace(prompt, tools=tools, messages=messages)


def _function(tool: Tool) -> Tool:
    if tool.kind != "custom":
        return tool
    description = tool.description or ""
    if tool.grammar is not None:
        rule = f"The input must match this {tool.grammar.kind} grammar:\n{tool.grammar.body}"
        description = f"{description}\n\n{rule}".strip()
    return msgspec.structs.replace(
        tool,
        kind="function",
        description=description or None,
        parameters=_PARAMETERS,
    )


def _with_function_calls(message: Message) -> Message:
    if all(call.kind == "function" for call in message.tool_calls):
        return message
    return msgspec.structs.replace(message, tool_calls=[_call(call) for call in message.tool_calls])


def _call(call: ToolCall) -> ToolCall:
    if call.kind != "custom":
        return call
    arguments = json.dumps({INPUT: call.arguments}, ensure_ascii=False)
    return msgspec.structs.replace(call, kind="function", arguments=arguments)


class CustomCalls:
    """Turns calls of free-form tools back into what they are, in the events of one answer.

    Args:
        tools: The request's tools.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._names = {tool.name for tool in tools if tool.kind == "custom"}
        self._index: int | None = None
        self._input = _Input()

    def events(self, events: Iterable[ReplyEvent]) -> Iterator[ReplyEvent]:
        """``events``, with the free-form input in place of the arguments that hold it."""
        for event in events:
            if self._index is not None and not (
                isinstance(event, ToolCallArguments) and event.index == self._index
            ):
                yield from self._end(event.answer)
            match event:
                case ToolCallStart(index=index, name=name) if name in self._names:
                    self._index, self._input = index, _Input()
                    yield msgspec.structs.replace(event, kind="custom")
                case ToolCallArguments(index=index, text=text) if index == self._index:
                    if piece := self._input.feed(text):
                        yield ToolCallInput(index, piece, event.answer)
                case _:
                    yield event

    def _end(self, answer: int) -> Iterator[ReplyEvent]:
        assert self._index is not None
        if rest := self._input.rest():
            yield ToolCallInput(self._index, rest, answer)
        self._index = None


class _Input:
    """Reads the input out of arguments that come in pieces.

    Arguments of another form, which only a reply without a grammar can have, are the input as they
    are.
    """

    def __init__(self) -> None:
        self._held = ""
        self._open = False
        self._closed = False

    def feed(self, text: str) -> str:
        """The input that ``text``, the next of the arguments, adds."""
        if self._closed:
            return ""
        self._held += text
        if not self._open:
            opening = _OPENING.match(self._held)
            if opening is None:
                return ""
            self._open = True
            self._held = self._held[opening.end() :]
        return self._decoded()

    def rest(self) -> str:
        """The input held back so far, now that the arguments have ended, perhaps cut off."""
        cut = f'{{"{INPUT}":"'.startswith("".join(self._held.split()))
        return "" if self._open or cut else self._held

    def _decoded(self) -> str:
        end = _string_end(self._held)
        if end is not None:
            self._closed = True
            text, self._held = self._held[:end], ""
        else:
            cut = _INCOMPLETE_ESCAPE.search(_masked(self._held))
            at = len(self._held) if cut is None else cut.start()
            text, self._held = self._held[:at], self._held[at:]
        return _unescaped(text)


def _masked(text: str) -> str:
    """``text`` with its escaped backslashes masked, so that no escape seems to begin in one."""
    return text.replace("\\\\", "__")


def _string_end(text: str) -> int | None:
    """The place of the quote that ends a JSON string; None if it is not there yet."""
    masked = _masked(text).replace('\\"', "__")
    at = masked.find('"')
    return None if at < 0 else at


def _unescaped(text: str) -> str:
    """The text that ``text`` stands for inside a JSON string; as it is if it has a bad escape."""
    try:
        unescaped: str = json.loads(f'"{text}"', strict=False)
    except ValueError:
        return text
    # Half of a surrogate pair is no character.
    return unescaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

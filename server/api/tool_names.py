"""The names under which models see tools, and the way back to those of the request.

Gateways name tools `server/tool` or `ns:tool`, which not every family can write.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import TypeVar

import msgspec

from server.core.reply import ReplyEvent, ToolCallStart
from server.core.request import (
    ChatPrompt,
    GenerationRequest,
    Message,
    Prompt,
    Tool,
    ToolCall,
    ToolChoice,
)

Named = TypeVar("Named", ToolCall, ToolChoice, Message, ToolCallStart)

LONGEST_NAME = 128
_UNUSUAL = re.compile(r"[^\w.-]")


def usual_name(name: str) -> str:
    """``name`` in the characters and the length that all models can write."""
    return _UNUSUAL.sub("_", name)[-LONGEST_NAME:]


class DistinctNames:
    """Gives each of many names out once; ``taken`` are those that are never given out."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._namesakes: dict[str, int] = defaultdict(lambda: 1)

    def of(self, name: str) -> str:
        """``name``, with a number behind it if that was given out before."""
        candidate = name
        while candidate in self._taken:
            self._namesakes[name] += 1
            suffix = f"_{self._namesakes[name]}"
            candidate = name[: LONGEST_NAME - len(suffix)] + suffix
        self._taken.add(candidate)
        return candidate


def model_names(tools: Iterable[Tool]) -> dict[str, str]:
    """The names that the model sees of tools whose own ones are unusual."""
    unusual = {tool.name: usual_name(tool.name) for tool in tools}
    distinct = DistinctNames(name for name, usual in unusual.items() if name == usual)
    return {name: distinct.of(usual) for name, usual in unusual.items() if name != usual}


def seen_by_model(prompt: Prompt) -> tuple[Prompt, Mapping[str, str]]:
    """``prompt`` with tools under names that the model can write, and the way back from those."""
    names = model_names(prompt.tools) if isinstance(prompt, ChatPrompt) else {}
    if not names:
        return prompt, {}
    assert isinstance(prompt, ChatPrompt)
    changed = msgspec.structs.replace(
        prompt,
        tools=[_tool(tool, names) for tool in prompt.tools],
        tool_choice=_renamed(prompt.tool_choice, names),
        messages=[_message(message, names) for message in prompt.messages],
    )
    return changed, {seen: name for name, seen in names.items()}


def asked_of_model(request: GenerationRequest) -> tuple[GenerationRequest, Mapping[str, str]]:
    """As `seen_by_model`, for a whole request."""
    prompt, names = seen_by_model(request.prompt)
    return (msgspec.structs.replace(request, prompt=prompt) if names else request), names


def in_request(
    events: AsyncGenerator[ReplyEvent], names: Mapping[str, str]
) -> AsyncGenerator[ReplyEvent]:
    """``events`` with the request's ``names`` of the tools that are called."""
    return _in_request(events, names) if names else events


async def _in_request(
    events: AsyncGenerator[ReplyEvent], names: Mapping[str, str]
) -> AsyncGenerator[ReplyEvent]:
    async with aclosing(events):
        async for event in events:
            yield _renamed(event, names) if isinstance(event, ToolCallStart) else event


def _tool(tool: Tool, names: Mapping[str, str]) -> Tool:
    if tool.name not in names:
        return tool
    return msgspec.structs.replace(tool, name=names[tool.name], name_in_request=tool.name)


def _message(message: Message, names: Mapping[str, str]) -> Message:
    if message.role == "tool":
        return _renamed(message, names)
    if not any(call.name in names for call in message.tool_calls):
        return message
    calls = [_renamed(call, names) for call in message.tool_calls]
    return msgspec.structs.replace(message, tool_calls=calls)


def _renamed(named: Named, names: Mapping[str, str]) -> Named:
    if named.name is None or named.name not in names:
        return named
    return msgspec.structs.replace(named, name=names[named.name])

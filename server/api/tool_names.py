"""The names under which models see tools, and the way back to those of the request.

Gateways name tools `server/tool` or `ns:tool`, which not every family can write.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
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

Named = TypeVar("Named", Tool, ToolCall, ToolChoice, Message, ToolCallStart)

LONGEST_NAME = 128
_UNUSUAL = re.compile(r"[^\w.-]")


def usual_name(name: str) -> str:
    """``name`` in the characters and the length that all models can write."""
    return _UNUSUAL.sub("_", name)[-LONGEST_NAME:]


def unlike(name: str, taken: Collection[str]) -> str:
    """``name``, with a number behind it if it is among ``taken``."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        suffix = f"_{number}"
        candidate = name[: LONGEST_NAME - len(suffix)] + suffix
    return candidate


def model_names(tools: Iterable[Tool]) -> dict[str, str]:
    """The names that the model sees of tools whose own ones are unusual."""
    unusual = {tool.name: usual_name(tool.name) for tool in tools}
    taken = {name for name, usual in unusual.items() if name == usual}
    found = {}
    for name, usual in unusual.items():
        if name not in taken:
            found[name] = unlike(usual, taken)
            taken.add(found[name])
    return found


def seen_by_model(prompt: Prompt) -> tuple[Prompt, Mapping[str, str]]:
    """``prompt`` with tools under names that the model can write, and the way back from those."""
    names = model_names(prompt.tools) if isinstance(prompt, ChatPrompt) else {}
    if not names:
        return prompt, {}
    assert isinstance(prompt, ChatPrompt)
    changed = msgspec.structs.replace(
        prompt,
        tools=[_renamed(tool, names) for tool in prompt.tools],
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

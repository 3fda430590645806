"""What a reply parser gives back: pieces of the assistant's message, in order."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable
from itertools import pairwise

import msgspec

from server.core.request import Message, ToolCall


class ContentDelta(msgspec.Struct, frozen=True, tag="content"):
    """More of the content."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, tag="reasoning"):
    """More of the reasoning."""

    text: str


class ToolCallStart(msgspec.Struct, frozen=True, tag="call"):
    """A tool call begins; ``index`` counts the reply's calls from 0."""

    index: int
    id: str
    name: str


class ToolCallArguments(msgspec.Struct, frozen=True, tag="arguments"):
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


ReplyDelta = ContentDelta | ReasoningDelta | ToolCallStart | ToolCallArguments


def join(deltas: Iterable[ReplyDelta]) -> list[ReplyDelta]:
    """``deltas`` with pieces of the same text, one after another, made one."""
    joined: list[ReplyDelta] = []
    pieces: list[str] = []
    for delta, following in pairwise((*deltas, None)):
        match delta, following:
            case ToolCallStart(), _:
                joined.append(delta)
                continue
            case ContentDelta(text), ContentDelta():
                pieces.append(text)
            case ReasoningDelta(text), ReasoningDelta():
                pieces.append(text)
            case ToolCallArguments(index, text), ToolCallArguments(same) if index == same:
                pieces.append(text)
            case ((ContentDelta(text) | ReasoningDelta(text) | ToolCallArguments(_, text)), _):
                joined.append(msgspec.structs.replace(delta, text="".join((*pieces, text))))
                pieces.clear()
    return joined


def random_id(length: int) -> str:
    """Letters and digits, as OpenAI's ids have them."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def fold(deltas: Iterable[ReplyDelta]) -> Message:
    """The message that ``deltas`` add up to; absent parts are None."""
    content: list[str] = []
    reasoning: list[str] = []
    starts: list[ToolCallStart] = []
    arguments: list[list[str]] = []
    for delta in deltas:
        match delta:
            case ContentDelta(text):
                content.append(text)
            case ReasoningDelta(text):
                reasoning.append(text)
            case ToolCallStart():
                starts.append(delta)
                arguments.append([])
            case ToolCallArguments(index, text):
                arguments[index].append(text)
    return Message(
        role="assistant",
        content="".join(content) or (None if starts else ""),
        reasoning_content="".join(reasoning) or None,
        tool_calls=[
            ToolCall(id=start.id, name=start.name, arguments="".join(pieces))
            for start, pieces in zip(starts, arguments, strict=True)
        ],
    )

"""Edits that clear what is old in a conversation: results of calls, and thoughts.

Clients send their conversation whole each time, so an edit finds again what it cleared before: its
prefix changes where something new is cleared, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from server.api.anthropic.schemas import context_management as wire
from server.core.request import Message, ToolCall

CLEARED = "[The result of this call was left out to save context.]"
_DEFAULT_TOOL_USES = 3
_DEFAULT_THINKING_TURNS = 1


class Cleared(NamedTuple):
    """A conversation without what was cleared, and in how many turns or calls."""

    messages: list[Message]
    places: int


_Place = tuple[int, int]
"""The message of a call, and its number there."""


class _Call(NamedTuple):
    """A call, and the message with its result, if there is one."""

    place: _Place
    call: ToolCall
    result: int | None


def without_thinking(edit: wire.ClearThinking, messages: Sequence[Message]) -> Cleared | None:
    """``messages`` without the thoughts of old turns; None where there are none to clear.

    A turn goes on behind the results of its calls, until the user speaks again: models need the
    thoughts that led to their calls.
    """
    turn, turns = 0, []
    for message in messages:
        turn += message.role == "user"
        turns.append(turn if message.reasoning_content else None)
    thinking = sorted({turn for turn in turns if turn is not None})
    old = set(thinking[: max(len(thinking) - _turns_kept(edit, len(thinking)), 0)])
    if not old:
        return None
    return Cleared(
        [
            msgspec.structs.replace(message, reasoning_content=None) if turn in old else message
            for message, turn in zip(messages, turns, strict=True)
        ],
        len(old),
    )


def without_tool_uses(edit: wire.ClearToolUses, messages: Sequence[Message]) -> Cleared | None:
    """``messages`` without the results of old calls; None where there are none to clear."""
    calls = _calls(messages)
    kept = _DEFAULT_TOOL_USES if edit.keep is None else edit.keep.value
    excluded = frozenset(edit.exclude_tools or ())
    old = [
        each
        for each in calls[: max(len(calls) - kept, 0)]
        if each.result is not None and each.call.name not in excluded
    ]
    if not old:
        return None
    without = {each.result for each in old}
    emptied = _losing_inputs(old, edit.clear_tool_inputs)
    return Cleared(
        [
            msgspec.structs.replace(message, content=CLEARED)
            if at in without
            else _without_inputs(message, at, emptied)
            for at, message in enumerate(messages)
        ],
        len(old),
    )


def tool_uses(messages: Sequence[Message]) -> list[ToolCall]:
    """All calls of a conversation."""
    return [call for message in messages for call in message.tool_calls]


def _turns_kept(edit: wire.ClearThinking, turns: int) -> int:
    match edit.keep:
        case None:
            return _DEFAULT_THINKING_TURNS
        case wire.ThinkingTurns(value=value):
            return value
        case _:
            return turns


def _calls(messages: Sequence[Message]) -> list[_Call]:
    """All calls of a conversation. Ids may repeat: a result answers the last call of its id."""
    calls: list[_Call] = []
    unanswered: dict[str, int] = {}
    for at, message in enumerate(messages):
        for number, call in enumerate(message.tool_calls):
            unanswered[call.id] = len(calls)
            calls.append(_Call((at, number), call, None))
        if message.role == "tool" and message.tool_call_id in unanswered:
            index = unanswered.pop(message.tool_call_id)
            calls[index] = calls[index]._replace(result=at)
    return calls


def _without_inputs(message: Message, at: int, emptied: Collection[_Place]) -> Message:
    if not any((at, number) in emptied for number in range(len(message.tool_calls))):
        return message
    calls = [
        msgspec.structs.replace(call, arguments="{}") if (at, number) in emptied else call
        for number, call in enumerate(message.tool_calls)
    ]
    return msgspec.structs.replace(message, tool_calls=calls)


def _losing_inputs(calls: Sequence[_Call], cleared: bool | list[str] | None) -> set[_Place]:
    """The places of those of ``calls`` that lose their arguments: all, or those of some tools."""
    names = frozenset(cleared) if isinstance(cleared, list) else None
    if names is None and not cleared:
        return set()
    return {each.place for each in calls if names is None or each.call.name in names}

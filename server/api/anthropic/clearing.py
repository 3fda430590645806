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
    old = thinking[: max(len(thinking) - _turns_kept(edit, len(thinking)), 0)]
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
    calls = tool_uses(messages)
    kept = _DEFAULT_TOOL_USES if edit.keep is None else edit.keep.value
    answered = {message.tool_call_id for message in messages if message.role == "tool"}
    old = {
        call.id
        for call in calls[: max(len(calls) - kept, 0)]
        if call.id in answered and call.name not in (edit.exclude_tools or ())
    }
    if not old:
        return None
    return Cleared([_without(message, old, edit) for message in messages], len(old))


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


def _without(message: Message, old: Collection[str], edit: wire.ClearToolUses) -> Message:
    if message.role == "tool" and message.tool_call_id in old:
        return msgspec.structs.replace(message, content=CLEARED)
    if not edit.clear_tool_inputs or not message.tool_calls:
        return message
    calls = [
        msgspec.structs.replace(call, arguments="{}")
        if call.id in old and _loses_input(call, edit.clear_tool_inputs)
        else call
        for call in message.tool_calls
    ]
    return msgspec.structs.replace(message, tool_calls=calls)


def _loses_input(call: ToolCall, cleared: bool | Collection[str]) -> bool:
    return cleared is True or (not isinstance(cleared, bool) and call.name in cleared)

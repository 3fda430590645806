"""Results of calls that come after other turns: each stands with its call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from server.core.request import Message


def behind_their_calls(messages: Sequence[Message]) -> list[tuple[int, Message]]:
    """The messages with their indexes, results that come late right behind their calls.

    A result comes late if a turn of the user or of the assistant stands before it and behind the
    call of its id. One that answers no open call stays where it is.
    """
    open_calls: dict[str, int] = {}
    late: dict[int, list[int]] = defaultdict(list)
    in_place: list[int] = []
    asking = -1
    for index, message in enumerate(messages):
        if message.role in {"user", "assistant"}:
            asking = index
            open_calls |= {call.id: index for call in message.tool_calls}
        elif message.role == "tool" and message.tool_call_id in open_calls:
            called = open_calls.pop(message.tool_call_id)
            if called != asking:
                late[called].append(index)
                continue
        in_place.append(index)
    order = [place for index in in_place for place in (index, *late.get(index, ()))]
    return [(index, messages[index]) for index in order]

"""Events of a parser, with neighbouring pieces of one text joined."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import msgspec

from server.core.reply import (
    ContentDelta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
)

ParsedEvent = ContentDelta | ReasoningDelta | ToolCallStart | ToolCallArguments
"""An event that a parser finds in a reply."""


def join(events: Iterable[ParsedEvent]) -> list[ParsedEvent]:
    """``events``, with each run of pieces of the same text joined into one."""
    joined: list[ParsedEvent] = []
    pieces: list[str] = []
    for event, following in pairwise((*events, None)):
        match event, following:
            case ToolCallStart(), _:
                joined.append(event)
                continue
            case ContentDelta(text), ContentDelta():
                pieces.append(text)
            case ReasoningDelta(text), ReasoningDelta():
                pieces.append(text)
            case ToolCallArguments(index, text), ToolCallArguments(same) if index == same:
                pieces.append(text)
            case ((ContentDelta(text) | ReasoningDelta(text) | ToolCallArguments(_, text)), _):
                joined.append(msgspec.structs.replace(event, text="".join((*pieces, text))))
                pieces.clear()
    return joined

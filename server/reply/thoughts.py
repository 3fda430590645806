"""How the reasoning of a reply is recognised while it is generated, and how it is cut short."""

from __future__ import annotations

from typing import NamedTuple

from server.core.reply_format import Channels, Reasoning, ReplyFormat


class ThoughtTexts(NamedTuple):
    """The texts by which a family's reasoning begins and ends.

    Attributes:
        openings: Each begins a stretch of reasoning.
        ends: Each ends one.
        opened: Whether the prompt has opened it already.
        recurs: Whether reasoning may come back later in the reply; else it comes first or never.
        closing: What the family writes between reasoning and what follows it.
        closing_again: The same after reasoning was closed once and came back.
        skipping: What a reply without reasoning begins with, so that none can come.
    """

    openings: tuple[str, ...]
    ends: tuple[str, ...]
    opened: bool
    recurs: bool
    closing: str
    closing_again: str
    skipping: str


def thought_texts(
    reply_format: ReplyFormat | None, *, prefix: str, tools_active: bool
) -> ThoughtTexts | None:
    """The texts around the reasoning of a reply that begins with ``prefix``; None: it has none."""
    if reply_format is None:
        return None
    if reply_format.channels is not None:
        return _of_channels(reply_format.channels, prefix, tools_active=tools_active)
    if reply_format.reasoning is not None:
        return _plain(reply_format.reasoning, *reply_format.reasoning_edges, prefix)
    return None


def _plain(reasoning: Reasoning, start: str, end: str, prefix: str) -> ThoughtTexts:
    opened = start in prefix and end not in prefix
    return ThoughtTexts(
        openings=(start,),
        ends=(end,),
        opened=opened,
        recurs=False,
        closing=reasoning.end,
        closing_again=reasoning.end,
        skipping=reasoning.end if opened else "",
    )


def _of_channels(channels: Channels, prefix: str, *, tools_active: bool) -> ThoughtTexts | None:
    """Messages with headers: the one that reasons ends, and the one that answers begins.

    Where the model may call, the first closing leaves the next header to it.
    """
    openings = tuple(
        header + channels.message
        for header in channels.asides
        if channels.reasoning is not None and channels.reasoning in header
    )
    if not (openings and channels.end and channels.answer):
        return None
    answer = channels.answer.removeprefix(prefix) + channels.message
    reopening = channels.end[0] + prefix
    return ThoughtTexts(
        openings=openings,
        ends=(*channels.end, *channels.start),
        opened=prefix.endswith(openings),
        recurs=True,
        closing=reopening if tools_active else reopening + answer,
        closing_again=reopening + answer,
        skipping="" if tools_active else answer,
    )

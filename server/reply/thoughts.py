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
    reply_format: ReplyFormat | None, *, prefix: str, tools_active: bool, must_call: bool = False
) -> ThoughtTexts | None:
    """The texts around the reasoning of a reply; None: it has none.

    Args:
        reply_format: The family's format; None if replies are content only.
        prefix: The end of the prompt that belongs to the reply.
        tools_active: Whether the reply may call tools.
        must_call: Whether it has to.
    """
    if reply_format is None:
        return None
    if reply_format.channels is not None:
        head = _call_head(reply_format, reply_format.channels) if must_call else ""
        return _of_channels(reply_format.channels, prefix, head, tools_active=tools_active)
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


def _call_head(reply_format: ReplyFormat, channels: Channels) -> str:
    """What a message that calls begins with, up to the name of the tool; empty if unknown."""
    calls = reply_format.calls
    head, name, _ = (channels.calling or (calls.call if calls else "")).partition("{name}")
    return head if name else ""


def _of_channels(
    channels: Channels, prefix: str, call_head: str, *, tools_active: bool
) -> ThoughtTexts | None:
    """Messages with headers: the one that reasons ends, and the one that answers begins.

    Where the model may call, the first closing leaves the next header to it; where it must, the
    call begins with ``call_head``.
    """
    openings = tuple(
        header + channels.message
        for header in channels.asides
        if channels.reasoning is not None and channels.reasoning in header
    )
    if not (openings and channels.end and channels.answer):
        return None
    following = call_head or channels.answer + channels.message
    following = following.removeprefix(prefix)
    reopening = channels.end[0] + prefix
    is_open = tools_active and not call_head
    return ThoughtTexts(
        openings=openings,
        ends=(*channels.end, *channels.start),
        opened=prefix.endswith(openings),
        recurs=True,
        closing=reopening if is_open else reopening + following,
        closing_again=reopening + following,
        skipping="" if is_open else following,
    )

"""The beginning of a reply that the prompt already holds."""

from __future__ import annotations

import re

from server.core.reply_format import ReplyFormat


def reply_prefix(prompt: str, reply_format: ReplyFormat) -> str:
    """The end of ``prompt`` that belongs to the reply: an opened reasoning block, a header."""
    optional = []
    # A header is a role and a channel; 64 characters are a choice.
    if reply_format.channels:
        starts = "|".join(re.escape(start.strip()) for start in reply_format.channels.start)
        optional.append(rf"(?:{starts})(?:(?!{starts}).){{0,64}}\Z")
    if reply_format.reasoning:
        start, end = map(re.escape, reply_format.reasoning_edges)
        optional.append(rf"{start}\s*(?:{end}\s*)?\Z|{end}\s*\Z")
    found = re.search("|".join(optional), prompt, re.DOTALL) if optional else None
    return found.group() if found else ""

"""The headers of messages, in formats whose replies consist of messages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from server.core.reply_format import Calls, Channels
from server.core.request import Tool


def called_name(channels: Channels, header: str, tools: Sequence[Tool]) -> str | None:
    """The tool that a message with this header calls; None if it is no call.

    A word that the family writes in front of the name (``functions.``) may be missing where the
    request has a tool of the name.
    """
    if not channels.call:
        return None
    if found := re.search(_name_pattern(channels.call), header):
        return found.group(1)
    shortened = re.sub(r"\w+\.\{name\}", "{name}", channels.call)
    found = re.search(_name_pattern(shortened), header)
    return found.group(1) if found and found.group(1) in {tool.name for tool in tools} else None


def begins_header(
    channels: Channels, calls: Calls | None, text: str, tools: Sequence[Tool]
) -> bool:
    """Whether ``text``, the beginning of a reply with its prefix, can become a header."""
    patterns = [channels.answer, *channels.asides, channels.calling, channels.call or ""]
    patterns += [calls.call if calls else ""]
    names = [tool.name for tool in tools]
    known = [
        pattern.replace("{name}", name).split("{")[0].strip()
        for pattern in patterns
        for name in (names if pattern.startswith("{name}") else ["{name}"])
    ]
    bare = text.strip()
    for start in sorted(channels.start, key=len, reverse=True):
        rest = bare.removeprefix(start).removeprefix("assistant").strip()
        for each in filter(None, known):
            for wanted in (each, each.removeprefix(start).strip()):
                if wanted and (wanted.startswith(rest) or rest.startswith(wanted)):
                    return True
    return False


def _name_pattern(pattern: str) -> str:
    name = re.escape(pattern).replace(r"\{name\}", r"([\w.\-]+)")
    return rf"(?<!\S){name}(?=[\s<]|$)"

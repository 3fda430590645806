"""The line by which Claude Code tells Anthropic whom to bill.

It stands in front of its system prompt, also where a proxy passes that on in another family's form.
Its value differs with each conversation, and with it all that follows would differ for the prefix
cache.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from server.core.request import Content, Message, TextPart

BILLING_HEADER = "x-anthropic-billing-header"
_LINE = re.compile(rf"{BILLING_HEADER}:[^\n]*\n?")
_ROLES = {"system", "developer"}


def without_billing_header(text: str) -> str:
    """A system prompt without the line."""
    found = _LINE.match(text)
    return text[found.end() :].lstrip("\n") if found else text


def is_billed(content: str | Sequence[Any]) -> bool:
    """Whether a system prompt, which may be a list of parts with text, begins with the line."""
    first = content if isinstance(content, str) else getattr(next(iter(content), None), "text", "")
    return _LINE.match(first or "") is not None


def unbilled(message: Message) -> Message:
    """The first message of a conversation without the line, if it is a system prompt."""
    if message.role not in _ROLES or not is_billed(message.content or ""):
        return message
    return msgspec.structs.replace(message, content=_without(message.content or ""))


def _without(content: Content) -> Content:
    if isinstance(content, str):
        return without_billing_header(content)
    line, others = content[0], content[1:]
    assert isinstance(line, TextPart)  # `is_billed` found the line in it
    first = TextPart(without_billing_header(line.text))
    return [*([first] if first.text else []), *others] or ""

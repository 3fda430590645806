"""The line by which Claude Code tells Anthropic whom to bill.

It stands in front of its system prompt, also where a proxy passes that on in another family's form,
with a part of its own in front. The value differs with each conversation, and with it all that
follows would differ for the prefix cache. It says nothing to a model, unlike dates, directories or
counts of tokens, which stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from server.core.request import Content, Message, TextPart

BILLING_HEADER = "x-anthropic-billing-header"
_LINE = re.compile(rf"\s*{BILLING_HEADER}:[^\n]*\n?", re.IGNORECASE)
_ROLES = {"system", "developer"}


def without_billing_header(text: str) -> str:
    """A system prompt without the line."""
    found = _LINE.match(text)
    return text[found.end() :].lstrip("\n") if found else text


def is_billed(content: str | Sequence[Any]) -> bool:
    """Whether a system prompt, or a part of it that has text, begins with the line."""
    parts = [content] if isinstance(content, str) else [getattr(it, "text", "") for it in content]
    return any(_LINE.match(part or "") for part in parts)


def unbilled(message: Message) -> Message:
    """The first message of a conversation without the line, if it is a system prompt."""
    if message.role not in _ROLES or not is_billed(message.content or ""):
        return message
    return msgspec.structs.replace(message, content=_without(message.content or ""))


def _without(content: Content) -> Content:
    if isinstance(content, str):
        return without_billing_header(content)
    parts = [
        TextPart(without_billing_header(part.text)) if isinstance(part, TextPart) else part
        for part in content
    ]
    return [part for part in parts if part != TextPart("")] or ""

"""How a family writes a reply: where reasoning, content and tool calls are in the raw text."""

from __future__ import annotations

import msgspec


class ReplyFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Placeholder fields; the reply room defines them."""

    name: str

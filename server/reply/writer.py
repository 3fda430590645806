"""Calls in a family's syntax: the inverse of the parser."""

from __future__ import annotations

from collections.abc import Sequence

from server.core.reply_format import Calls
from server.core.request import ToolCall
from server.reply import json_text
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.table import dialect_of


def write_calls(calls: Sequence[ToolCall], syntax: Calls) -> str:
    """The text of calls; arguments that are not a JSON object are written unchanged.

    Args:
        calls: At least one call.
        syntax: The family's call syntax. If it allows one call only, further ones just follow.
    """
    dialect = dialect_of(syntax)
    written = (_write_call(call, index, syntax, dialect) for index, call in enumerate(calls))
    return f"{syntax.begin}{syntax.separator.join(written)}{syntax.end}"


def _write_call(call: ToolCall, index: int, syntax: Calls, dialect: Dialect) -> str:
    # The arguments are inserted last, so that placeholders in them stay.
    head, tail = syntax.call.split("{arguments}", 1)
    for place, text in (("{name}", call.name), ("{id}", call.id), ("{index}", str(index))):
        head, tail = head.replace(place, text), tail.replace(place, text)
    is_object = isinstance(json_text.parsed(call.arguments), dict)
    written = dialect.write(call.arguments) if is_object else call.arguments
    return head + written + tail

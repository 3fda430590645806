"""What the reply tests share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from server.core.reply import message_of
from server.core.reply_format import ReplyFormat
from server.core.request import Message, Tool, ToolCall
from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.parser import ReplyParser
from server.reply.syntax import compile_calls

WEATHER = Tool(
    name="get_weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "exact": {"type": "boolean"},
            "fields": {"type": "array"},
        },
    },
)
TOOLS = [WEATHER, Tool(name="get_time", parameters={"properties": {"city": {"type": "string"}}})]

CALLS = [
    ToolCall(id="a1b2c3d4e", name="get_weather", arguments='{"city": "Oslo", "days": 3}'),
    ToolCall(id="f5g6h7i8j", name="get_time", arguments='{"city": "x < y"}'),
]

FORMATS = [pytest.param(builtin_format(name), id=name) for name in builtin_tables()]


def trigger(reply_format: ReplyFormat) -> str:
    """The text with which a call opens."""
    assert reply_format.calls
    return compile_calls(reply_format.calls).trigger


def parse_in_pieces(
    pieces: Iterable[str], reply_format: ReplyFormat | None, **options: Any
) -> Message:
    return read_in_pieces(pieces, reply_format, **options)[0]


def read_in_pieces(
    pieces: Iterable[str], reply_format: ReplyFormat | None, **options: Any
) -> tuple[Message, ReplyParser]:
    parser = ReplyParser(reply_format, **{"tools_active": True, **options})
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return message_of([*deltas, *parser.finish()]), parser


def without_ids(message: Message) -> Message:
    calls = [msgspec.structs.replace(call, id="") for call in message.tool_calls]
    return msgspec.structs.replace(message, tool_calls=calls)

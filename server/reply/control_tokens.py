"""The control tokens that the raw text of a reply must show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from server.core.reply_format import ReplyFormat
from server.reply.dialects.table import dialect_of

_PLACEHOLDER = re.compile(r"\{(?:name|arguments|id|index|key|value|string)\}")
_CONTROL_TOKENS = (
    re.compile(r"<[^<>\s]+>"),
    re.compile(r"\[[^\[\]\s\"]+\]"),
    re.compile(r"｜[^｜\s]+｜"),
)


def control_tokens(reply_format: ReplyFormat) -> frozenset[str]:
    """The texts of a format that look like control tokens.

    A reply can be parsed only if its detokenised text shows those that the vocabulary holds as
    control tokens.
    """
    literals = chain.from_iterable(map(_PLACEHOLDER.split, _patterns(reply_format)))
    tokens = (kind.findall(text) for text in literals for kind in _CONTROL_TOKENS)
    edges = filter(None, reply_format.reasoning_edges)
    return frozenset((*chain.from_iterable(tokens), *edges))


def _patterns(reply_format: ReplyFormat) -> Iterator[str]:
    yield from reply_format.framing
    yield from reply_format.reasoning_edges
    if calls := reply_format.calls:
        yield from (calls.begin, calls.call, calls.separator, calls.end, calls.argument)
        yield from dialect_of(calls).markers
    if channels := reply_format.channels:
        yield from (*channels.start, channels.message, *channels.end)

"""Calls in words, and which of their characters came from the request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

import msgspec

from server.core.reply_format import Calls
from server.core.request import ToolCall
from server.prompt.template.authored import Author, Authored
from server.reply.json_text import parsed
from server.reply.writer import write_calls

_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPE_OR_TEXT = re.compile(r'\\.|[^\\"\s]', re.DOTALL)
# The first private-use plane (The Unicode Standard, section 23.5).
_PRIVATE_PLANE = 0xF0000


def authored_calls(calls: Sequence[ToolCall], syntax: Calls) -> Authored:
    """`write_calls`, with the names, ids and arguments of the calls as the request's values.

    The calls are written once more with other characters in place of the request's, to see where
    each comes out. Where that is not certain, all is taken for the request's.
    """
    text = write_calls(calls, syntax)
    shadow = write_calls([_shifted_call(call) for call in calls], syntax)
    unclear = len(shadow) != len(text) or any("\\u" in call.arguments for call in calls)
    if unclear or any(b not in {a, _shifted(a)} for a, b in zip(text, shadow, strict=True)):
        return Authored(text, [("value", len(text))])
    authors: list[Author] = [
        "server" if a == b else "value" for a, b in zip(text, shadow, strict=True)
    ]
    return Authored(text, [(author, len(list(run))) for author, run in groupby(authors)])


def _shifted(character: str) -> str:
    return chr(_PRIVATE_PLANE + (ord(character) & 0xFFFF))


def _shifted_text(text: str) -> str:
    """``text`` with other characters, apart from white space, quotes and escapes."""
    return _ESCAPE_OR_TEXT.sub(lambda m: m[0] if m[0][0] == "\\" else _shifted(m[0]), text)


def _shifted_call(call: ToolCall) -> ToolCall:
    if isinstance(parsed(call.arguments), dict):
        # Outside of strings there are only the signs of JSON, numbers and its three words.
        arguments = _JSON_STRING.sub(lambda match: _shifted_text(match[0]), call.arguments)
    else:
        arguments = "".join(c if c.isspace() else _shifted(c) for c in call.arguments)
    name, identity = _shifted_text(call.name), _shifted_text(call.id)
    return msgspec.structs.replace(call, id=identity, name=name, arguments=arguments)

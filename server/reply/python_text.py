"""Values in Python's notation, passed on as JSON while they arrive."""

from __future__ import annotations

import ast
import json
import re

from server.reply import json_text
from server.reply.notation import Notation
from server.reply.source import EndOfReply, NotACall, Source, Steps, Write

_BARE = re.compile(r"[\w.+\-]*")
_TEXT = re.compile(r"[^'\"\\]*")
_HEX = re.compile(r"[0-9a-fA-F]*")
_AFTER_STRING = ",)]}:"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_CODE_DIGITS = {"x": 2, "u": 4, "U": 8}


def value(source: Source, write: Write) -> Steps[None]:
    """Pass on any value. Raises NotACall where it cannot go on, EndOfReply."""
    yield from _PYTHON.value(source, write)


def to_json(text: str) -> str | None:
    """The JSON of a whole text in Python's notation; None if it is not a value."""
    source = Source()
    source.feed(f"{text} ")
    source.close(cut=False)
    pieces: list[str] = []
    try:
        for _ in value(source, pieces.append):
            pass
        next(source.skip_space(), None)
    except NotACall:
        return None
    except EndOfReply:
        converted = "".join(pieces)
        return converted if json_text.is_valid(converted) else None
    return None


def _string(source: Source, write: Write) -> Steps[None]:
    """Read a string. A quote inside a word does not end it: templates do not escape quotes."""
    quote = source.take(1)
    write('"')
    while True:
        write(json_text.escape(source.run(_TEXT)))
        character = yield from source.peek()
        if character == "\\":
            yield from _escape_sequence(source, write)
        elif character in "'\"":
            source.take(1)
            if character == quote:
                following = yield from source.peek()
                if following.isspace() or following in _AFTER_STRING:
                    break
            write(json_text.escape(character))
    write('"')


def _escape_sequence(source: Source, write: Write) -> Steps[None]:
    source.take(1)
    kind = yield from source.peek()
    source.take(1)
    if kind in _CODE_DIGITS:
        digits = ""
        while len(digits) < _CODE_DIGITS[kind] and _HEX.fullmatch((yield from source.peek())):
            digits += source.take(1)
        write(_character(int(digits or "fffd", 16)))
    elif kind in "\\'\"":
        write(json_text.escape(kind))
    else:
        write(json_text.escape(_ESCAPES.get(kind, "\\" + kind)))


def _character(code: int) -> str:
    """A character for a JSON string; half of a surrogate pair stays an escape."""
    if 0xD800 <= code <= 0xDFFF:
        return f"\\u{code:04x}"
    return json_text.escape(chr(code) if code <= 0x10FFFF else "\ufffd")


def _as_json(word: str) -> str:
    if word in _CONSTANTS or json_text.is_valid(word):
        return _CONSTANTS.get(word, word)
    try:
        return json.dumps(ast.literal_eval(word), allow_nan=False)
    except (ValueError, SyntaxError, TypeError):
        return f'"{json_text.escape(word)}"'


_PYTHON = Notation(
    quotes="'\"",
    string=_string,
    lists={"[": "]", "(": ")"},
    key=_BARE,
    word=_BARE,
    scalar=_as_json,
)

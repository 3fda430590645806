"""JSON in a reply: values passed on while they arrive."""

from __future__ import annotations

import json
import re

from server.reply.source import NotACall, Source, Steps, Write
from server.reply.syntax import FENCE

# Outside strings "<" is never JSON, and it opens nearly every marker that may follow.
_OUTSIDE = re.compile(r'[^"{}\[\]<]*')
_INSIDE = re.compile(r'[^"\\\x00-\x1f]*')
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SCALAR = re.compile(r"[\w.+\-]*")


def _refuse(constant: str) -> object:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def value(source: Source, write: Write) -> Steps[None]:
    """Pass on any JSON value. Raises NotACall where it cannot go on."""
    first = yield from source.skip_space()
    if first == '"':
        yield from _string(source, write)
    elif first in "{[":
        yield from _nested(source, write)
    else:
        write((yield from source.word(_SCALAR)))


def string(source: Source) -> Steps[str]:
    """The text of a JSON string. Raises NotACall if there is none."""
    pieces: list[str] = []
    yield from source.skip_space()
    yield from _string(source, pieces.append)
    text = parsed("".join(pieces))
    if not isinstance(text, str) or _LONE_SURROGATE.search(text):
        raise NotACall
    return text


def opens_fence(source: Source) -> Steps[bool]:
    """Read white space and, if one opens here, a code fence with its word; whether one did."""
    yield from source.skip_space()
    if not (yield from source.accept(FENCE)):
        return False
    while _SCALAR.fullmatch((yield from source.peek())):
        source.run(_SCALAR)
    return True


def closes_fence(source: Source) -> Steps[None]:
    """Read white space and, if it comes next, the end of a code fence."""
    yield from source.skip_space()
    yield from source.accept(FENCE)


def is_valid(text: str) -> bool:
    """Whether ``text`` is a JSON value."""
    return parsed(text) is not None or text.strip() == "null"


def parsed(text: str) -> object:
    """The value of the JSON ``text``; None if it is not JSON."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def escape(text: str) -> str:
    """``text``, escaped to stand inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _nested(source: Source, write: Write) -> Steps[None]:
    depth = 0
    while True:
        write(source.run(_OUTSIDE))
        match (yield from source.peek()):
            case '"':
                yield from _string(source, write)
            case "{" | "[":
                depth += 1
                write(source.take(1))
            case "}" | "]":
                depth -= 1
                write(source.take(1))
                if depth == 0:
                    return
            case "<":
                raise NotACall
            case _:
                pass


def _string(source: Source, write: Write) -> Steps[None]:
    if not (yield from source.accept('"')):
        raise NotACall
    write('"')
    while True:
        write(source.run(_INSIDE))
        character = yield from source.peek()
        if character == "\\":
            yield from _escape_sequence(source, write)
        elif character == '"':
            write(source.take(1))
            return
        elif character < " ":
            # Models write line breaks inside strings, which JSON forbids.
            write(escape(source.take(1)))


def _escape_sequence(source: Source, write: Write) -> Steps[None]:
    backslash = source.take(1)
    yield from source.peek()
    write(backslash + source.take(1))

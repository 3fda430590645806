"""Gemma's arguments: ``{city:<|"|>Oslo<|"|>,days:3}``, JSON with bare keys and its own quote."""

from __future__ import annotations

import re

from server.core.reply_format import GEMMA_QUOTE
from server.reply.dialects import json_text
from server.reply.source import Markers, NotACall, Source, Steps, Write

_KEY = re.compile(r'[^:{}\[\],<"]*')
_BARE = re.compile(r'[^,{}\[\]<"]*')
_QUOTE = Markers([GEMMA_QUOTE])
_MAX_DEPTH = 64


def arguments(source: Source, write: Write) -> Steps[None]:
    """Read an object. Raises NotACall where it cannot go on."""
    if (yield from source.skip_space()) != "{":
        raise NotACall
    yield from _object(source, write, 1)


def _value(source: Source, write: Write, depth: int) -> Steps[None]:
    if depth > _MAX_DEPTH:
        raise NotACall
    match (yield from source.skip_space()):
        case "{":
            yield from _object(source, write, depth + 1)
        case "[":
            yield from _array(source, write, depth + 1)
        case "<" | '"':
            yield from _string(source, write)
        case _:
            text = (yield from source.word(_BARE)).strip()
            write(text if json_text.is_valid(text) else f'"{json_text.escape(text)}"')


def _object(source: Source, write: Write, depth: int) -> Steps[None]:
    source.take(1)
    write("{")
    separator = ""
    while (first := (yield from source.skip_space())) != "}":
        write(separator)
        separator = ", "
        if first in '<"':
            yield from _string(source, write)
        else:
            key = (yield from source.word(_KEY)).strip()
            write(f'"{json_text.escape(key)}"')
        yield from source.expect(":")
        write(": ")
        yield from _value(source, write, depth)
        yield from _skip_comma(source, "}")
    write(source.take(1))


def _array(source: Source, write: Write, depth: int) -> Steps[None]:
    source.take(1)
    write("[")
    separator = ""
    while (yield from source.skip_space()) != "]":
        write(separator)
        separator = ", "
        yield from _value(source, write, depth)
        yield from _skip_comma(source, "]")
    write(source.take(1))


def _skip_comma(source: Source, end: str) -> Steps[None]:
    if (yield from source.skip_space()) != end:
        yield from source.expect(",")


def _string(source: Source, write: Write) -> Steps[None]:
    if (yield from source.accept(GEMMA_QUOTE)):
        write('"')
        yield from source.stream(_QUOTE, lambda text: write(json_text.escape(text)))
        source.take(len(GEMMA_QUOTE))
        write('"')
    else:
        yield from json_text.value(source, write)

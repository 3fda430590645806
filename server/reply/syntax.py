"""The patterns of a format, split into parts for reading.

A reader accepts any amount of white space where a pattern has some, because models do not always
write it as the template does. So it reads a literal as *atoms*: the texts between its white space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import msgspec

from server.core.reply_format import Calls

FENCE = "```"
_BRACKETS = {"[", "]", ","}

Hole = Literal["name", "id", "index", "arguments"]

_HOLE = re.compile(r"\{(name|arguments|id|index)\}")
# The brackets of an array, and code fences, are atoms of their own.
_ATOM = re.compile(r"\[$|\[(?=\s)|\](?=\S)|```(?:json)?|\S+?(?=\[$|\[\s|```)|\S+")
_JSON_CALL = re.compile(r'\{\s*"(?:[^{}]|\{(?:name|arguments|id|index)\})*\}')


class ObjectCall(msgspec.Struct, frozen=True):
    """The keys of a call that is one JSON object. ``name`` None: the tool's name is the key."""

    arguments: str
    name: str | None = None
    id: str | None = None


class CallSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """How to read calls.

    ``trigger`` is the text with which calls open. ``begin``, ``separator`` and ``end`` are the
    atoms around and between calls, ``open`` and ``close`` those around each. Between ``open`` and
    ``close`` stands a JSON object, if ``object`` gives its keys; otherwise ``header`` (atoms and
    holes in turn) and the arguments.
    """

    trigger: str
    begin: tuple[str, ...]
    separator: tuple[str, ...]
    end: tuple[str, ...]
    open: tuple[str, ...]
    close: tuple[str, ...]
    header: tuple[tuple[str, ...] | Hole, ...] = ()
    object: ObjectCall | None = None

    @property
    def bare(self) -> bool:
        """Whether calls are JSON without a marker, recognised only at the start of a reply."""
        return self.trigger in {"{", "["}


@lru_cache(maxsize=64)
def compile_calls(calls: Calls) -> CallSyntax:
    """Split the patterns of a call syntax into parts."""
    begin, separator, end = map(atoms, (calls.begin, calls.separator, calls.end))
    header: tuple[tuple[str, ...] | Hole, ...] = ()
    payload = None
    found = _JSON_CALL.search(calls.call)
    if found:
        payload = _object_call(found.group())
        before, after = calls.call[: found.start()], calls.call[found.end() :]
    else:
        before, after = calls.call.split("{arguments}", 1)
        before, *rest = _HOLE.split(before)
        header = tuple(
            _hole(piece) if place % 2 == 0 else atoms(piece) for place, piece in enumerate(rest)
        )
    first = (*begin, *atoms(before), "{")
    return CallSyntax(
        trigger=first[0],
        begin=begin,
        separator=separator,
        end=end,
        open=atoms(before),
        close=atoms(after),
        header=header,
        object=payload,
    )


def atoms(literal: str) -> tuple[str, ...]:
    """The texts of ``literal`` between which white space is allowed."""
    return tuple(_ATOM.findall(literal))


def without_object(call: str) -> str:
    """The pattern of a call with ``{arguments}`` in the place of a whole JSON object."""
    return _JSON_CALL.sub("{arguments}", call)


def marks(texts: Sequence[str]) -> tuple[str, ...]:
    """The atoms that mark something, without the brackets and fences at both ends.

    Those are read where they come, since a model may leave them out.
    """
    kept = [n for n, text in enumerate(texts) if text not in _BRACKETS and text[:3] != FENCE]
    return tuple(texts[kept[0] : kept[-1] + 1]) if kept else ()


def _object_call(pattern: str) -> ObjectCall:
    sample = json.loads(pattern.replace("{arguments}", '"{arguments}"'))
    keys = {value: key for key, value in sample.items()}
    return ObjectCall(keys["{arguments}"], keys.get("{name}"), keys.get("{id}"))


def _hole(name: str) -> Hole:
    match name:
        case "name" | "id" | "index" | "arguments":
            return name
    raise ValueError(name)

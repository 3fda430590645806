r"""Arguments between tags, one after another: ``<parameter=city>\nOslo\n</parameter>``.

The tags carry no types, so a value is a string or JSON by what the tool's schema says of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from server.core.request import Tool
from server.reply.dialects import json_text, pythonic
from server.reply.source import EndOfReply, Markers, NotACall, Source, Steps, Write

IsString = Callable[[str], bool | None]

_PYTHON_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_WORD = re.compile(r"\w*")


class Argument(msgspec.Struct, frozen=True):
    """An argument pattern, taken apart.

    ``open``, ``after_key``, ``after_string`` and ``close`` are the texts around key, string mark
    and value; ``lead`` and ``trail`` the white space directly around the value.
    """

    open: tuple[str, ...]
    after_key: tuple[str, ...]
    marks_strings: bool
    after_mark: tuple[str, ...]
    lead: str
    trail: str
    close: tuple[str, ...]


@lru_cache(maxsize=64)
def compile_argument(pattern: str) -> Argument:
    """The parts of an argument pattern."""
    before, _, rest = pattern.partition("{key}")
    between, _, after = rest.partition("{value}")
    after_key, mark, after_mark = between.partition("{string}")
    return Argument(
        open=tuple(before.split()),
        after_key=tuple(after_key.split()),
        marks_strings=bool(mark),
        after_mark=tuple(after_mark.split()),
        lead=between[len(between.rstrip()) :],
        trail=after[: -len(after.lstrip())],
        close=tuple(after.split()),
    )


def arguments(
    source: Source, write: Write, pattern: str, close: tuple[str, ...], is_string: IsString
) -> Steps[None]:
    """Read arguments up to the call's closing texts ``close``, left unread.

    Raises:
        NotACall: There is neither an argument nor the end of the call.
    """
    argument = compile_argument(pattern)
    separator = "{"
    yield from source.skip_space()
    while (yield from source.accept(argument.open[0])):
        yield from source.expect(*argument.open[1:])
        key = (yield from source.before(argument.after_key[0], limit=256)).strip()
        yield from source.expect(*argument.after_key[1:])
        string = is_string(key)
        if argument.marks_strings:
            string = (yield from source.word(_WORD)) == "true"
            yield from source.expect(*argument.after_mark)
        write(f'{separator}"{json_text.escape(key)}": ')
        separator = ", "
        yield from source.accept(argument.lead)
        yield from _value(source, write, argument, string)
        yield from source.skip_space()
    if separator == "{":
        if not close or not (yield from source.comes(close[0])):
            raise NotACall
        write("{")
    write("}")


def string_types(tool: Tool | None) -> IsString:
    """Whether an argument of ``tool`` is a string, by its name; None: it may be."""
    schema = (tool and tool.parameters) or {}
    properties = schema.get("properties")
    return lambda key: _is_string(properties.get(key)) if isinstance(properties, dict) else None


def _is_string(schema: Any) -> bool | None:
    if not isinstance(schema, dict):
        return None
    types = schema.get("type")
    if types is None:
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if not isinstance(values, list) or not values:
            return None
        types = ["string" if isinstance(value, str) else "other" for value in values]
    types = [types] if isinstance(types, str) else types
    if not isinstance(types, list) or "string" not in types:
        return False
    return True if set(types) == {"string"} else None


def _value(source: Source, write: Write, argument: Argument, string: bool | None) -> Steps[None]:
    end = Markers({argument.trail + argument.close[0], argument.close[0]})
    if string:
        write('"')
        marker = yield from source.stream(end, lambda text: write(json_text.escape(text)))
        write('"')
    else:
        pieces: list[str] = []
        try:
            marker = yield from source.stream(end, pieces.append)
        except EndOfReply:
            write('"' + json_text.escape("".join(pieces)))
            raise
        write(_as_json("".join(pieces), quoted=string is None))
    source.take(len(marker))
    yield from source.expect(*argument.close[1:])


def _as_json(text: str, *, quoted: bool) -> str:
    """``text`` if it is JSON (``quoted``: other than a string), else a JSON string of it."""
    bare = text.strip()
    if bare in _PYTHON_CONSTANTS:
        return _PYTHON_CONSTANTS[bare]
    if json_text.is_valid(bare) and not (quoted and bare.startswith('"')):
        return bare
    # Some templates print lists and objects in Python's notation.
    converted = pythonic.to_json(bare) if bare.startswith(("[", "{")) else None
    return converted or f'"{json_text.escape(text)}"'

"""Arguments as Python keyword arguments: ``city='Oslo', days=3``."""

from __future__ import annotations

import json
import re
from typing import Any

from server.core.reply_format import Calls
from server.core.request import Constraint, Tool
from server.grammar.free_text import free_text_in_json
from server.grammar.keywords import Schema
from server.grammar.lark import Grammar, quoted
from server.grammar.references import self_contained
from server.reply import json_text, python_text
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.members import in_order, json_part, members
from server.reply.source import Source, Steps, Write

_WORD = re.compile(r"\w*")
_NAMES = re.compile(r"\w+")


class Pythonic(Dialect):
    """Keyword arguments up to the closing parenthesis of the call, which is left unread."""

    def __init__(self, calls: Calls) -> None:
        """Needs nothing of the call syntax."""

    def read(self, source: Source, write: Write, tool: Tool | None) -> Steps[None]:
        """Read values in Python's notation or in JSON's."""
        separator = "{"
        while (yield from source.skip_space()) != ")":
            key = yield from source.word(_WORD)
            yield from source.expect("=")
            write(f'{separator}"{json_text.escape(key)}": ')
            separator = ", "
            yield from python_text.value(source, write)
            yield from source.skip_comma(before=")")
        write("}" if separator == ", " else "{}")

    def write(self, arguments: str) -> str:
        """Python literals, but for objects: those are JSON."""
        return ", ".join(f"{key}={_written(value)}" for key, value in json.loads(arguments).items())

    def grammar(self, schema: Schema, grammar: Grammar) -> str:
        """Arguments in the order of the schema, with values in JSON, but for booleans."""
        root = self_contained(schema)
        found = members(root, _NAMES)
        written = [f'"{member.key}=" {_value(member.schema, root, grammar)}' for member in found]
        return in_order(found, written, ", ", grammar)

    def free_form(self, name: str, text: Constraint, grammar: Grammar) -> str:
        """The text as a string that Python and JSON read alike."""
        head = quoted(f'{name}="')
        return f"{head} {free_text_in_json(text, grammar)} {quoted(chr(34))}"


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else repr(value)


def _value(schema: Any, root: Schema, grammar: Grammar) -> str:
    if isinstance(schema, dict) and schema.get("type") == "boolean" and "enum" not in schema:
        return '("True" | "False")'
    return json_part(schema, root, grammar)

"""Arguments as Python keyword arguments: ``city='Oslo', days=3``."""

from __future__ import annotations

import json
import re
from typing import Any

from server.core.errors import Locator
from server.core.reply_format import Calls
from server.core.request import Constraint, Tool
from server.grammar.free_text import free_text_in_json
from server.grammar.keywords import Schema
from server.grammar.lark import Grammar, one_of, quoted
from server.grammar.unions import Alternatives
from server.reply import json_text, python_text
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.members import (
    Form,
    Member,
    forms_of,
    in_order,
    json_part,
    other_name,
    repeated,
    weaker_if_unwritable,
)
from server.reply.source import Source, Steps, Write
from server.reply.tool_schema import Arguments

_WORD = re.compile(r"[\w.\-]*")
_NAMES = re.compile(r"[\w.\-]+")


class Pythonic(Dialect):
    """Keyword arguments up to the closing parenthesis of the call, which is left unread."""

    def __init__(self, calls: Calls) -> None:
        """Needs nothing of the call syntax."""

    def read(self, source: Source, write: Write, tool: Tool | None) -> Steps[None]:
        """Read values in Python's notation or in JSON's."""
        separator = "{"
        while (yield from source.skip_space()) != ")":
            quoted_key = (yield from source.peek()) == '"'
            key = yield from json_text.string(source) if quoted_key else source.word(_WORD)
            yield from source.expect("=")
            write(f'{separator}"{json_text.escape(key)}": ')
            separator = ", "
            yield from python_text.value(source, write)
            yield from source.skip_comma(before=")")
        write("}" if separator == ", " else "{}")

    def write(self, arguments: str) -> str:
        """Python literals, but for objects: those are JSON."""
        return ", ".join(f"{key}={_written(value)}" for key, value in json.loads(arguments).items())

    def grammar(self, arguments: Arguments, grammar: Grammar) -> str:
        """Arguments in the order of the schema, with values in JSON, but for booleans."""
        alternatives = Alternatives(arguments.schema)
        return one_of(
            [_form(form, arguments, grammar) for form in forms_of(arguments, alternatives)]
        )

    def free_form(self, name: str, text: Constraint, grammar: Grammar) -> str:
        """The text as a string that Python and JSON read alike."""
        head = quoted(f'{name}="')
        return f"{head} {free_text_in_json(text, grammar)} {quoted(chr(34))}"


def _form(form: Form, arguments: Arguments, grammar: Grammar) -> str:
    def value(schema: Any, path: Locator) -> str:
        return weaker_if_unwritable(
            lambda weaker: _value(weaker, arguments.schema, grammar),
            schema,
            path,
            arguments.leniency,
            grammar,
        )

    members = list(form.members)
    written = [
        f"{quoted(f'{_key(key)}=')} {value(schema, ('properties', key))}"
        for key, schema, _ in members
    ]
    if form.others is not False:
        name = other_name(form.listed, grammar)
        other = f'{name} "=" {value(form.others, ("additionalProperties",))}'
        members.append(Member("", form.others, optional=True))
        written.append(repeated(other, ", ", grammar))
    return in_order(members, written, ", ", grammar)


def _key(name: str) -> str:
    """A name as a keyword; one that cannot be a keyword in quotes."""
    return name if _NAMES.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else repr(value)


def _value(schema: Any, root: Schema, grammar: Grammar) -> str:
    if isinstance(schema, dict) and schema.get("type") == "boolean" and "enum" not in schema:
        return '("True" | "False")'
    return json_part(schema, root, grammar)

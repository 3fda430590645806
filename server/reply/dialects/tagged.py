r"""Arguments between tags, one after another: ``<parameter=city>\nOslo\n</parameter>``.

Most tags carry no types, so the tool's schema decides whether a value is a string or JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from server.core.errors import Locator
from server.core.reply_format import Calls
from server.core.request import Constraint, Tool
from server.grammar.free_text import free_text
from server.grammar.json_values import type_of
from server.grammar.keywords import Schema
from server.grammar.lark import Grammar, one_of, quoted
from server.grammar.raw_text import (
    compounds,
    ended_by,
    loose_terminal,
    text_terminal,
    writable,
)
from server.grammar.unions import Alternatives
from server.reply import json_text, python_text
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.members import (
    Form,
    forms_of,
    json_part,
    other_name,
    weaker_if_unwritable,
)
from server.reply.source import EndOfReply, Markers, NotACall, Source, Steps, Write
from server.reply.syntax import compile_calls
from server.reply.tool_schema import Arguments
from server.reply.value_types import ALL, STRING, ArgumentTypes, Types

_ARGUMENT = re.compile(r"\S.*\{key\}\s*\S.*\{value\}\s*\S", re.DOTALL)
_PYTHON_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_CDATA_START = "<![CDATA["
_CDATA = re.compile(r"\s*<!\[CDATA\[(.*)\]\]>\s*", re.DOTALL)
_WORD = re.compile(r"\w*")
_OPEN_STRING = re.compile(r'[^"]*(?:"(?:[^"\\]|\\.)*"[^"]*)*"(?:[^"\\]|\\.)*\\?', re.DOTALL)


class Tagged(Dialect):
    """Writes each argument as the call syntax's ``argument`` shows.

    The texts of that pattern: ``before`` the key, ``between`` key and value, ``after`` the value.
    Where ``between`` holds ``{string}``, the family says there whether the value is a string.
    """

    def __init__(self, calls: Calls) -> None:
        if not _ARGUMENT.search(calls.argument):
            raise ValueError("`argument` needs texts around {key} and {value}")
        self._before, _, rest = calls.argument.partition("{key}")
        self._between, _, self._after = rest.partition("{value}")
        before_mark, mark, after_mark = self._between.partition("{string}")
        self._marks_strings = bool(mark)
        # For reading: the texts between white space, and the white space directly around a value.
        self._open = tuple(self._before.split())
        self._after_key = tuple(before_mark.split())
        self._after_mark = tuple(after_mark.split())
        self._lead = self._between[len(self._between.rstrip()) :]
        self._close = tuple(self._after.split())
        trail = self._after[: -len(self._after.lstrip())]
        self._value_end = Markers({trail + self._close[0], self._close[0]})
        self._call_close = compile_calls(calls).close

    def read(self, source: Source, write: Write, tool: Tool | None) -> Steps[None]:
        """Read arguments up to the closing texts of the call, which are left unread."""
        types = ArgumentTypes(tool and tool.parameters)
        separator = "{"
        yield from source.skip_space()
        while (yield from source.accept(self._open[0])):
            yield from source.expect(*self._open[1:])
            key = (yield from source.before(self._after_key[0])).strip()
            yield from source.expect(*self._after_key[1:])
            allowed = types.of(key)
            if self._marks_strings:
                is_string = (yield from source.word(_WORD)) == "true"
                # A mark that the schema rules out is a slip of the model's.
                allowed = allowed & (STRING if is_string else ALL - STRING) or allowed
                yield from source.expect(*self._after_mark)
            write(f'{separator}"{json_text.escape(key)}": ')
            separator = ", "
            yield from source.accept(self._lead)
            yield from self._value(source, write, allowed)
            yield from source.skip_space()
        if separator == "{":
            if not self._call_close or not (yield from source.comes(self._call_close[0])):
                raise NotACall
            write("{")
        write("}")

    def _value(self, source: Source, write: Write, allowed: Types) -> Steps[None]:
        if allowed == STRING and not (yield from source.comes(_CDATA_START)):
            write('"')
            marker = yield from source.stream(
                self._value_end, lambda text: write(json_text.escape(text))
            )
            write('"')
        else:
            text, marker = yield from self._structured(source, write)
            wrapped = _CDATA.fullmatch(text)
            write(_as_json(wrapped.group(1) if wrapped else text, allowed))
        source.take(len(marker))
        yield from source.expect(*self._close[1:])

    def _structured(self, source: Source, write: Write) -> Steps[tuple[str, str]]:
        """Consume a value that may be JSON; the value, and the marker behind it.

        The marker may also stand inside the value, in a string of JSON or in CDATA. If that never
        ends, the value ends at the first marker all the same.
        """
        pieces: list[str] = []
        first = None
        try:
            while True:
                marker = yield from source.stream(self._value_end, pieces.append)
                text = "".join(pieces)
                if not _is_open(text):
                    return text, marker
                first = len(text) if first is None else first
                pieces.append(source.take(len(marker)))
        except EndOfReply:
            text = "".join(pieces)
            if first is None or source.cut:
                write('"' + json_text.escape(text))
                raise
        source.give_back(text[first:])
        return text[:first], (yield from source.stream(self._value_end, lambda _: None))

    def write(self, arguments: str) -> str:
        """Strings as they are, other values as JSON."""
        return "".join(self._written(*item) for item in json.loads(arguments).items())

    def _written(self, key: str, value: Any) -> str:
        is_string = isinstance(value, str)
        between = self._between.replace("{string}", "true" if is_string else "false")
        text = value if is_string else json.dumps(value, ensure_ascii=False)
        return f"{self._before}{key}{between}{text}{self._after}"

    def grammar(self, arguments: Arguments, grammar: Grammar) -> str:
        """Arguments in the order of the schema."""
        alternatives = Alternatives(arguments.schema)
        forms = forms_of(arguments, alternatives)
        return one_of([self._form(form, arguments, alternatives, grammar) for form in forms])

    def free_form(self, name: str, text: Constraint, grammar: Grammar) -> str:
        """The text up to the closing tag."""
        literal = grammar.spelling.literal
        between = literal(self._between.replace("{string}", "true"))
        value = free_text(text, self._after, grammar)
        return f"{literal(self._before)} {quoted(name)} {between} {value}"

    def _form(
        self, form: Form, arguments: Arguments, alternatives: Alternatives, grammar: Grammar
    ) -> str:
        types = ArgumentTypes(arguments.tool.parameters)
        before = grammar.spelling.literal(self._before)

        def value(schema: Any, path: Locator, read_as: Types) -> str:
            def write(weaker: Any) -> str:
                strings, others = alternatives.strings_and_others(weaker)
                strings = writable(strings, self._after)
                if self._marks_strings:
                    return self._marked(strings, others, arguments.schema, grammar)
                if not strings or not read_as & STRING:
                    return self._as_json(weaker, arguments.schema, grammar)
                return self._unmarked(strings, others, read_as, arguments.schema, grammar)

            return weaker_if_unwritable(write, schema, path, arguments.leniency, grammar)

        written = []
        for key, schema, optional in form.members:
            if not self._can_write(key):
                if not optional:
                    arguments.leniency.give_up(
                        ("required",),
                        f"In this model's call syntax the argument name {key[:50]!r} cannot be "
                        "written.",
                    )
                continue
            text = value(schema, ("properties", key), types.of(key))
            one = grammar.rule(f"{before} {quoted(key)} {text}")
            written.append(f"{one}?" if optional else one)
        if form.others is not False:
            name = other_name(form.listed, grammar)
            other = value(form.others, ("additionalProperties",), types.of(""))
            written.append(f"({grammar.rule(f'{before} {name} {other}')})*")
        return " ".join(written)

    def _can_write(self, key: str) -> bool:
        """Whether the reader finds the whole ``key``."""
        return key == key.strip() != "" and self._after_key[0] not in key and "\n" not in key

    def _marked(
        self, strings: Sequence[Schema], others: Sequence[Schema], root: Schema, grammar: Grammar
    ) -> str:
        """A value after a mark that says whether it is a string."""
        literal = grammar.spelling.literal
        mark, then = self._between.split("{string}")
        ways = []
        if strings:
            text = ended_by(self._after, text_terminal(strings), grammar)
            ways.append(f"{literal(f'{mark}true{then}')} {text}")
        for other in others:
            head = literal(f"{mark}false{then}")
            ways.append(f"{head} {json_part(other, root, grammar)} {literal(self._after)}")
        return one_of(ways)

    def _as_json(self, schema: Any, root: Schema, grammar: Grammar) -> str:
        literal = grammar.spelling.literal
        return f"{literal(self._between)} {json_part(schema, root, grammar)} {literal(self._after)}"

    def _unmarked(
        self,
        strings: Sequence[Schema],
        others: Sequence[Schema],
        read_as: Types,
        root: Schema,
        grammar: Grammar,
    ) -> str:
        """A value that is a string by its schema or, where that allows others too, by its looks."""
        head = grammar.spelling.literal(self._between)
        if read_as == STRING:
            return f"{head} {ended_by(self._after, text_terminal(strings), grammar)}"
        terminal = loose_terminal(strings, others, looks=read_as - STRING)
        ways = [f"{head} {ended_by(self._after, terminal, grammar)}"]
        ways += [self._as_json(each, root, grammar) for each in compounds(others)]
        return one_of(ways)


def _is_open(text: str) -> bool:
    """Whether ``text`` ends inside CDATA, or in a string of an object or an array."""
    begun = text.lstrip()
    if begun.startswith(_CDATA_START):
        return "]]>" not in begun
    if not begun.startswith(("[", "{")) or not _OPEN_STRING.fullmatch(begun):
        return False
    return not python_text.to_json(begun.rstrip())  # where a quote may stand alone


def _as_json(text: str, allowed: Types) -> str:
    """The JSON of ``text``: of another type than string where it looks like one that is allowed."""
    bare = text.strip()
    written = _PYTHON_CONSTANTS.get(bare, bare)
    if not json_text.is_valid(written) and bare.startswith(("[", "{")):
        # Some templates print lists and objects in Python's notation.
        written = python_text.to_json(bare) or ""
    is_json = json_text.is_valid(written)
    if is_json and (type_of(json_text.parsed(written)) in allowed - STRING or not allowed & STRING):
        return written
    return f'"{json_text.escape(text)}"'

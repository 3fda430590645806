r"""Arguments between tags, one after another: ``<parameter=city>\nOslo\n</parameter>``.

Most tags carry no types, so the tool's schema decides whether a value is a string or JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

from server.core.reply_format import Calls
from server.core.request import Constraint, Tool
from server.grammar.free_text import free_text
from server.grammar.json_values import type_of
from server.grammar.keywords import Schema
from server.grammar.lark import Grammar, one_of, quoted
from server.grammar.raw_text import ended_by, loose_terminal, text_terminal
from server.grammar.references import self_contained
from server.grammar.unions import split_union
from server.reply import json_text, python_text
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.members import Member, json_part, members
from server.reply.source import EndOfReply, Markers, NotACall, Source, Steps, Write
from server.reply.syntax import compile_calls
from server.reply.value_types import ALL, STRING, ArgumentTypes, Types

_ARGUMENT = re.compile(r"\S.*\{key\}\s*\S.*\{value\}\s*\S", re.DOTALL)
_PYTHON_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_CDATA_START = "<![CDATA["
_CDATA = re.compile(r"\s*<!\[CDATA\[(.*)\]\]>\s*", re.DOTALL)
_WORD = re.compile(r"\w*")
_NAMES = re.compile(r"[^\s<>\"]([^<>\"\n]{0,200}[^\s<>\"])?")


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
            pieces: list[str] = []
            try:
                marker = yield from source.stream(self._value_end, pieces.append)
            except EndOfReply:
                write('"' + json_text.escape("".join(pieces)))
                raise
            text = "".join(pieces)
            wrapped = _CDATA.fullmatch(text)
            write(_as_json(wrapped.group(1) if wrapped else text, allowed))
        source.take(len(marker))
        yield from source.expect(*self._close[1:])

    def write(self, arguments: str) -> str:
        """Strings as they are, other values as JSON."""
        return "".join(self._written(*item) for item in json.loads(arguments).items())

    def _written(self, key: str, value: Any) -> str:
        is_string = isinstance(value, str)
        between = self._between.replace("{string}", "true" if is_string else "false")
        text = value if is_string else json.dumps(value, ensure_ascii=False)
        return f"{self._before}{key}{between}{text}{self._after}"

    def grammar(self, schema: Schema, grammar: Grammar) -> str:
        """Arguments in the order of the schema."""
        root = self_contained(schema)
        arguments = []
        for member in members(root, _NAMES):
            if self._marks_strings:
                value = self._marked(member, root, grammar)
            else:
                value = self._unmarked(member, root, grammar)
            head = f"{grammar.spelling.literal(self._before)} {quoted(member.key)}"
            argument = grammar.rule(f"{head} {value}")
            arguments.append(f"{argument}?" if member.optional else argument)
        return " ".join(arguments)

    def free_form(self, name: str, text: Constraint, grammar: Grammar) -> str:
        """The text up to the closing tag."""
        literal = grammar.spelling.literal
        between = literal(self._between.replace("{string}", "true"))
        value = free_text(text, self._after, grammar)
        return f"{literal(self._before)} {quoted(name)} {between} {value}"

    def _marked(self, member: Member, root: Schema, grammar: Grammar) -> str:
        """A value after a mark that says whether it is a string."""
        literal = grammar.spelling.literal
        strings, others = split_union(member.schema, root)
        mark, then = self._between.split("{string}")
        ways = []
        if strings:
            text = ended_by(self._after, text_terminal(strings), grammar)
            ways.append(f"{literal(f'{mark}true{then}')} {text}")
        for other in others:
            head = literal(f"{mark}false{then}")
            ways.append(f"{head} {json_part(other, root, grammar)} {literal(self._after)}")
        return one_of(ways)

    def _unmarked(self, member: Member, root: Schema, grammar: Grammar) -> str:
        """A value that is a string by its schema or, where that allows others too, by its looks."""
        literal = grammar.spelling.literal
        head = literal(self._between)
        strings, others = split_union(member.schema, root)
        if not strings:
            value = json_part(member.schema, root, grammar)
            return f"{head} {value} {literal(self._after)}"
        terminal = loose_terminal(strings, others) if others else text_terminal(strings)
        return f"{head} {ended_by(self._after, terminal, grammar)}"


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

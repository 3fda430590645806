"""Gemma's arguments: ``{city:<|"|>Oslo<|"|>,days:3}``, JSON with bare keys and its own quote."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any, ClassVar

from server.core.errors import Locator
from server.core.reply_format import Calls
from server.core.request import Constraint, Tool
from server.grammar.free_text import free_text
from server.grammar.keywords import Schema
from server.grammar.lark import Grammar, one_of, quoted
from server.grammar.raw_text import Unwritable, ended_by, text_terminal, writable
from server.grammar.references import steps
from server.grammar.unions import Alternatives
from server.reply import json_text
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.members import (
    Form,
    Member,
    form_of,
    forms_of,
    in_order,
    json_part,
    other_name,
    repeated,
    weaker_if_unwritable,
)
from server.reply.notation import Notation
from server.reply.source import Markers, NotACall, Source, Steps, Write
from server.reply.tool_schema import Arguments

QUOTE = '<|"|>'

_KEY = re.compile(r'[^:{}\[\],<"]*')
_BARE = re.compile(r'[^,{}\[\]<"]*')
_QUOTE = Markers([QUOTE])
_NAMES = re.compile(r"[^:{}\[\],<\"\s]([^:{}\[\],<\"]*[^:{}\[\],<\"\s])?")
_OF_OBJECTS = {"type", "properties", "required", "additionalProperties"}
_OF_ARRAYS = {"type", "items", "minItems", "maxItems"}


class Gemma(Dialect):
    """Gemma's notation for objects, at every level."""

    markers: ClassVar[tuple[str, ...]] = (QUOTE,)

    def __init__(self, calls: Calls) -> None:
        """Needs nothing of the call syntax."""

    def read(self, source: Source, write: Write, tool: Tool | None) -> Steps[None]:
        """Read an object, in which a bare word that is not JSON is a string."""
        if (yield from source.skip_space()) != "{":
            raise NotACall
        yield from _GEMMA.object(source, write)

    def write(self, arguments: str) -> str:
        """Bare keys, Gemma's quotes around strings, no white space."""
        return _written(json.loads(arguments))

    def grammar(self, arguments: Arguments, grammar: Grammar) -> str:
        """Arguments in the order of the schema; a value Gemma cannot enforce is JSON."""
        return _ValueRules(arguments, grammar).write()

    def free_form(self, name: str, text: Constraint, grammar: Grammar) -> str:
        """The text between Gemma's quotes."""
        head = f"{quoted('{' + name + ':')} {grammar.spelling.literal(QUOTE)}"
        return f'{head} {free_text(text, QUOTE, grammar)} "}}"'


def _written(value: Any) -> str:
    if isinstance(value, str):
        return f"{QUOTE}{value}{QUOTE}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value)


def _string(source: Source, write: Write) -> Steps[None]:
    if (yield from source.accept(QUOTE)):
        write('"')
        yield from source.stream(_QUOTE, lambda text: write(json_text.escape(text)))
        source.take(len(QUOTE))
        write('"')
    else:
        yield from json_text.value(source, write)


def _scalar(text: str) -> str:
    """The JSON of a value without quotes: a string, unless it is JSON itself."""
    return text if json_text.is_valid(text) else f'"{json_text.escape(text)}"'


_GEMMA = Notation(
    quotes='<"', string=_string, lists={"[": "]"}, key=_KEY, word=_BARE, scalar=_scalar
)


class _ValueRules:
    """Rules for the values of one schema: one per subschema, which may refer to itself.

    The subschemas are known by their identity, which holds while ``root`` exists. They wait in a
    list, because a chain of references can be longer than Python's stack.
    """

    def __init__(self, arguments: Arguments, grammar: Grammar) -> None:
        self._arguments = arguments
        self._root = arguments.schema
        self._alternatives = Alternatives(arguments.schema)
        self._grammar = grammar
        self._known: dict[int, tuple[str, Any]] = {}
        self._waiting: list[tuple[str, Any, Locator]] = []

    def write(self) -> str:
        forms = forms_of(self._arguments, self._alternatives)
        arguments = one_of([self._object(form, ()) for form in forms])
        while self._waiting:
            name, schema, path = self._waiting.pop()
            ways = weaker_if_unwritable(
                partial(self._ways, path=path),
                schema,
                path,
                self._arguments.leniency,
                self._grammar,
            )
            self._grammar.define(name, ways)
        return arguments

    def _object(self, form: Form, path: Locator) -> str:
        members = list(form.members)
        written = [
            f"{self._key(key)} {self._value(schema, (*path, 'properties', key))}"
            for key, schema, _ in members
        ]
        if form.others is not False:
            name = other_name(form.listed, self._grammar)
            other = self._value(form.others, (*path, "additionalProperties"))
            members.append(Member("", form.others, optional=True))
            written.append(repeated(f'{name} ":" {other}', ",", self._grammar))
        return f'"{{" {in_order(members, written, ",", self._grammar)} "}}"'

    def _key(self, key: str) -> str:
        """A name and its colon; one that cannot stand bare in JSON's quotes."""
        written = key if _NAMES.fullmatch(key) else json.dumps(key, ensure_ascii=False)
        return quoted(f"{written}:")

    def _value(self, schema: Any, path: Locator) -> str:
        # A reference and what it refers to share a rule.
        target = schema
        if isinstance(schema, dict) and schema.keys() == {"$ref"}:
            target = self._root["$defs"][steps(schema["$ref"])[-1]]
        if id(target) not in self._known:
            name = self._grammar.reserve()
            self._known[id(target)] = name, target
            self._waiting.append((name, target, path))
        return self._known[id(target)][0]

    def _ways(self, schema: Any, *, path: Locator) -> str:
        strings, others = self._alternatives.strings_and_others(schema)
        strings = writable(strings, QUOTE)
        ways = [self._other(other, path) for other in others]
        if strings:
            text = ended_by(QUOTE, text_terminal(strings), self._grammar)
            ways.append(f"{self._grammar.spelling.literal(QUOTE)} {text}")
        return one_of(ways)

    def _other(self, schema: Schema, path: Locator) -> str:
        """A value that is not a string."""
        kind = schema.get("type")
        if kind == "object" and "properties" in schema and schema.keys() <= _OF_OBJECTS:
            form = form_of(schema, self._alternatives)
            if form is None:
                raise Unwritable("a required property is forbidden")
            return self._object(form, path)
        if kind == "array" and "items" in schema and schema.keys() <= _OF_ARRAYS:
            return self._array(schema, path)
        return json_part(schema, self._root, self._grammar)

    def _array(self, schema: Schema, path: Locator) -> str:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0 or not self._alternatives.of(schema["items"]):
            if least:
                raise Unwritable("an item is both required and forbidden")
            return '"[" "]"'
        item = self._value(schema["items"], (*path, "items"))
        items = item
        if most != 1:  # llguidance takes no count of 0
            more = f"{max(least - 1, 0)},{'' if most is None else most - 1}"
            items = f'{item} ("," {item}){{{more}}}'
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

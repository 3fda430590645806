"""Gemma's arguments: ``{city:<|"|>Oslo<|"|>,days:3}``, JSON with bare keys and its own quote."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from server.core.reply_format import Calls
from server.core.request import Constraint, Tool
from server.grammar.free_text import free_text
from server.grammar.keywords import ANNOTATIONS, Schema
from server.grammar.lark import Grammar, one_of, quoted
from server.grammar.raw_text import ended_by, text_terminal
from server.grammar.references import self_contained
from server.grammar.unions import resolved, split_union
from server.reply import json_text
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.members import in_order, json_part, members
from server.reply.notation import Notation
from server.reply.source import Markers, NotACall, Source, Steps, Write

QUOTE = '<|"|>'

_KEY = re.compile(r'[^:{}\[\],<"]*')
_BARE = re.compile(r'[^,{}\[\]<"]*')
_QUOTE = Markers([QUOTE])
_NAMES = re.compile(r"[^:{}\[\],<\"\s]([^:{}\[\],<\"]*[^:{}\[\],<\"\s])?")
_OF_OBJECTS = {"type", "properties", "required", "additionalProperties", *ANNOTATIONS}
_OF_ARRAYS = {"type", "items", "minItems", "maxItems", *ANNOTATIONS}


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

    def grammar(self, schema: Schema, grammar: Grammar) -> str:
        """Arguments in the order of the schema; a value Gemma cannot enforce is JSON."""
        return _ValueRules(self_contained(schema), grammar).write()

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

    def __init__(self, root: Schema, grammar: Grammar) -> None:
        self._root = root
        self._grammar = grammar
        self._known: dict[int, str] = {}
        self._waiting: list[tuple[str, Any]] = []

    def write(self) -> str:
        arguments = self._object(self._root)
        while self._waiting:
            name, schema = self._waiting.pop()
            self._grammar.define(name, self._ways(schema))
        return arguments

    def _object(self, schema: Schema) -> str:
        found = members(schema, _NAMES)
        written = [f"{quoted(f'{member.key}:')} {self._value(member.schema)}" for member in found]
        return f'"{{" {in_order(found, written, ",", self._grammar)} "}}"'

    def _value(self, schema: Any) -> str:
        schema = resolved(schema, self._root)
        name = self._known.get(id(schema))
        if name is None:
            self._known[id(schema)] = name = self._grammar.reserve()
            self._waiting.append((name, schema))
        return name

    def _ways(self, schema: Any) -> str:
        strings, others = split_union(schema, self._root)
        ways = [self._other(other) for other in others]
        if strings:
            text = ended_by(QUOTE, text_terminal(strings), self._grammar)
            ways.append(f"{self._grammar.spelling.literal(QUOTE)} {text}")
        return one_of(ways)

    def _other(self, schema: Schema) -> str:
        """A value that is not a string."""
        kind = schema.get("type")
        if kind == "object" and "properties" in schema and schema.keys() <= _OF_OBJECTS:
            return self._object(schema)
        if kind == "array" and "items" in schema and schema.keys() <= _OF_ARRAYS:
            return self._array(schema)
        return json_part(schema, self._root, self._grammar)

    def _array(self, schema: Schema) -> str:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if schema["items"] is False or most == 0:
            return '"[" "]"'
        item = self._value(schema["items"])
        more = f"{max(least - 1, 0)},{'' if most is None else most - 1}"
        items = f'{item} ("," {item}){{{more}}}'
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

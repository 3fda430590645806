"""Grammars for the arguments of a call, by the dialect in which a family writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from server.core.errors import InvalidConstraint
from server.core.reply_format import GEMMA_QUOTE, Calls
from server.core.request import Tool
from server.grammar.json_schema import Schema, enforceable
from server.grammar.lark import Grammar, one_of, quoted, without
from server.grammar.raw_text import Unwritable, loose_terminal, resolved, split_union, text_terminal
from server.reply.dialects import tagged

_ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "$comment"}
_OF_OBJECTS = {"type", "properties", "required", "additionalProperties", *_ANNOTATIONS}
_OF_ARRAYS = {"type", "items", "minItems", "maxItems", *_ANNOTATIONS}
_COMBINING = ("allOf", "anyOf", "oneOf", "$ref", "enum", "const", "patternProperties")
_COUNTING = ("minProperties", "maxProperties")
_NAMES = {
    "tagged": re.compile(r"[^\s<>\"]([^<>\"\n]{0,200}[^\s<>\"])?"),
    "pythonic": re.compile(r"\w+"),
    "gemma": re.compile(r"[^:{}\[\],<\"\s]([^:{}\[\],<\"]*[^:{}\[\],<\"\s])?"),
}


class _Member(NamedTuple):
    """An argument: its name, its schema, and whether it may be left out."""

    key: str
    schema: Any
    optional: bool


def arguments_schema(tool: Tool) -> Schema:
    """The schema of a tool's arguments, fit for enforcement.

    Arguments are always an object. One that lists its properties has no others unless the schema
    asks for them, for the tool could make nothing of them.

    Raises:
        InvalidConstraint: It cannot be enforced; the message names the keyword and the tool.
    """
    try:
        schema = enforceable(tool.parameters or {"properties": {}})
        if schema.setdefault("type", "object") != "object":
            raise InvalidConstraint("The keyword 'type' must be 'object' for a tool's arguments.")
    except InvalidConstraint as error:
        raise unenforceable(tool, error.message) from error
    if "properties" in schema and not schema.keys() & set(_COMBINING):
        schema.setdefault("additionalProperties", False)
    return schema


def unenforceable(tool: Tool, reason: str) -> InvalidConstraint:
    """The refusal of a tool whose arguments cannot be held to its schema."""
    message = f"The arguments of the tool {tool.name} cannot be enforced. {reason}"
    return InvalidConstraint(message, at=("tools",))


class ArgumentsWriter:
    """Writes arguments in the dialect of ``calls`` into ``grammar``."""

    def __init__(self, calls: Calls, grammar: Grammar) -> None:
        self._calls = calls
        self._grammar = grammar
        self._known: dict[int, str] = {}

    def write(self, tool: Tool) -> str:
        """The arguments of a call to ``tool``, in Lark.

        Raises:
            InvalidConstraint: They cannot be enforced; the message names the keyword and the tool.
        """
        schema = arguments_schema(tool)
        try:
            match self._calls.dialect:
                case "json":
                    return self._grammar.part({"json_schema": schema})
                case "tagged":
                    return self._tagged(schema, tagged.string_types(tool))
                case "pythonic":
                    return self._pythonic(schema)
                case "gemma":
                    return self._gemma_object(schema, schema)
        except Unwritable as error:
            raise unenforceable(tool, f"In this model's call syntax {error}.") from error

    def _json(self, schema: object, root: Schema) -> str:
        """JSON for a part of ``root``, to whose definitions it may refer."""
        if not isinstance(schema, Mapping):
            schema = {}
        context = {key: root[key] for key in ("$defs", "definitions", "x-guidance") if key in root}
        return self._grammar.part({"json_schema": {**schema, **context}})

    def _members(self, schema: Schema) -> list[_Member]:
        """The arguments that can be written; any that are not listed are left out."""
        for keyword in (*_COMBINING, *_COUNTING):
            if keyword in schema:
                raise Unwritable(f"the keyword '{keyword}' cannot be enforced for an object")
        properties = dict(schema.get("properties", {}))
        required = schema.get("required", [])
        for key in required:
            properties.setdefault(key, schema.get("additionalProperties", True))
            if properties[key] is False:
                raise Unwritable(f"the argument {key[:50]!r} is both required and forbidden")
        members = [
            _Member(key, part, key not in required)
            for key, part in properties.items()
            if part is not False
        ]
        for member in members:
            if not _NAMES[self._calls.dialect].fullmatch(member.key):
                raise Unwritable(f"the argument name {member.key[:50]!r} cannot be written")
        return members

    # --- between tags ---

    def _tagged(self, root: Schema, is_string: tagged.IsString) -> str:
        before, rest = self._calls.argument.split("{key}")
        between, after = rest.split("{value}")
        arguments = []
        for member in self._members(root):
            if "{string}" in between:
                value = self._marked(member.schema, root, between, after)
            else:
                string = is_string(member.key)
                value = self._unmarked(member.schema, root, string, between, after)
            head = f"{self._grammar.spelling.literal(before)} {quoted(member.key)}"
            argument = self._grammar.rule(f"{head} {value}")
            arguments.append(f"{argument}?" if member.optional else argument)
        return " ".join(arguments)

    def _marked(self, schema: Any, root: Schema, between: str, after: str) -> str:
        """A value in front of which the family says whether it is a string."""
        strings, others = split_union(schema, root)
        mark, then = between.split("{string}")
        ways = []
        if strings:
            text = self._raw(text_terminal(strings), after)
            ways.append(f"{self._grammar.spelling.literal(f'{mark}true{then}')} {text}")
        for other in others:
            head = self._grammar.spelling.literal(f"{mark}false{then}")
            ways.append(f"{head} {self._json(other, root)} {self._grammar.spelling.literal(after)}")
        return one_of(ways)

    def _unmarked(
        self, schema: Any, root: Schema, string: bool | None, between: str, after: str
    ) -> str:
        """A value whose reader knows by the schema that it is a string, or judges by its looks."""
        head = self._grammar.spelling.literal(between)
        strings, others = split_union(schema, root)
        if string is False or not strings:
            return f"{head} {self._json(schema, root)} {self._grammar.spelling.literal(after)}"
        terminal = text_terminal(strings) if string else loose_terminal(strings, others)
        return f"{head} {self._raw(terminal, after)}"

    def _raw(self, terminal: str, after: str) -> str:
        """A text that ``terminal`` matches, and ``after`` which ends it."""
        body = f"({terminal} & {without(after.split(maxsplit=1)[0])})"
        return self._grammar.until(body, after)

    # --- as Python writes keyword arguments ---

    def _pythonic(self, root: Schema) -> str:
        members = self._members(root)
        written = [
            f'"{member.key}=" {self._python_value(member.schema, root)}' for member in members
        ]
        return self._separated(members, written, ", ")

    def _python_value(self, schema: Any, root: Schema) -> str:
        if isinstance(schema, dict) and schema.get("type") == "boolean" and "enum" not in schema:
            return '("True" | "False")'
        return self._json(schema, root)

    def _separated(self, members: list[_Member], written: list[str], separator: str) -> str:
        """The members in order, ``separator`` between those that are there."""
        following = first = ""
        for member, text in zip(reversed(members), reversed(written), strict=True):
            item = self._grammar.rule(text)
            next_one = self._grammar.rule(f"{quoted(separator)} {item}")
            opening = f"{item} {following}"
            following = self._grammar.rule(
                f"{next_one}{'?' if member.optional else ''} {following}".strip()
            )
            if member.optional and first:
                opening = f"{opening} | {first}"
            elif member.optional:
                opening = f"({opening})?"
            first = self._grammar.rule(opening)
        return first

    # --- as Gemma writes objects ---

    def _gemma_object(self, schema: Schema, root: Schema) -> str:
        members = self._members(schema)
        written = [
            f"{quoted(f'{member.key}:')} {self._gemma_value(member.schema, root)}"
            for member in members
        ]
        return f'"{{" {self._separated(members, written, ",")} "}}"'

    def _gemma_value(self, schema: Any, root: Schema) -> str:
        schema = resolved(schema, root)
        name = self._known.get(id(schema))
        if name is None:
            self._known[id(schema)] = name = self._grammar.reserve()
            strings, others = split_union(schema, root)
            ways = [self._gemma_other(other, root) for other in others]
            if strings:
                text = self._raw(text_terminal(strings), GEMMA_QUOTE)
                ways.append(f"{self._grammar.spelling.literal(GEMMA_QUOTE)} {text}")
            self._grammar.define(name, one_of(ways))
        return name

    def _gemma_other(self, schema: Schema, root: Schema) -> str:
        """A value that is no string; what Gemma's own form cannot hold to is written as JSON."""
        kind = schema.get("type")
        if kind == "object" and "properties" in schema and schema.keys() <= _OF_OBJECTS:
            return self._gemma_object(schema, root)
        if kind == "array" and "items" in schema and schema.keys() <= _OF_ARRAYS:
            return self._gemma_array(schema, root)
        return self._json(schema, root)

    def _gemma_array(self, schema: Schema, root: Schema) -> str:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if schema["items"] is False or most == 0:
            return '"[" "]"'
        item = self._gemma_value(schema["items"], root)
        more = f"{max(least - 1, 0)},{'' if most is None else most - 1}"
        items = f'{item} ("," {item}){{{more}}}'
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

"""Arguments that are JSON already: ``{"city": "Oslo", "days": 3}``."""

from __future__ import annotations

from server.core.reply_format import Calls
from server.core.request import Tool
from server.grammar.keywords import Schema
from server.grammar.lark import Grammar
from server.reply import json_text
from server.reply.dialects.dialect import Dialect
from server.reply.source import NotACall, Source, Steps, Write


class PlainJson(Dialect):
    """Passes JSON through as it is."""

    def __init__(self, calls: Calls) -> None:
        """Needs nothing of the call syntax."""

    def read(self, source: Source, write: Write, tool: Tool | None) -> Steps[None]:
        """Read an object, or one inside a JSON string; ``null`` stands for an empty one."""
        match (yield from source.skip_space()):
            case "{":
                yield from json_text.value(source, write)
            case '"':
                text = yield from json_text.string(source)
                if not isinstance(json_text.parsed(text), dict):
                    raise NotACall
                write(text)
            case "n" if (yield from source.accept("null")):
                write("{}")
            case _:
                raise NotACall

    def write(self, arguments: str) -> str:
        """The text as it is."""
        return arguments

    def grammar(self, schema: Schema, grammar: Grammar) -> str:
        """Llguidance's own grammar for the schema."""
        return grammar.part({"json_schema": schema})

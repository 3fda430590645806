"""Arguments that are JSON already: ``{"city": "Oslo", "days": 3}``."""

from __future__ import annotations

import json

from server.core.reply_format import Calls
from server.core.request import Constraint, Tool
from server.grammar.free_text import free_text_in_json
from server.grammar.lark import Grammar, quoted
from server.reply import json_text
from server.reply.dialects.dialect import Dialect
from server.reply.source import NotACall, Source, Steps, Write
from server.reply.tool_schema import Arguments


class PlainJson(Dialect):
    """Passes JSON through as it is."""

    def __init__(self, calls: Calls) -> None:
        """Needs nothing of the call syntax."""

    def read(self, source: Source, write: Write, tool: Tool | None) -> Steps[None]:
        """Read an object, also in a fence, in a JSON string or as the one item of an array.

        ``null``, an empty string and an empty array stand for an empty object.
        """
        fenced = yield from json_text.opens_fence(source)
        match (yield from source.skip_space()):
            case "{":
                yield from json_text.value(source, write)
            case '"':
                write(_object((yield from json_text.string(source))))
            case "[":
                pieces: list[str] = []
                yield from json_text.value(source, pieces.append)
                write(_object("".join(pieces)))
            case "n" if (yield from source.accept("null")):
                write("{}")
            case _:
                raise NotACall
        if fenced:
            yield from json_text.closes_fence(source)

    def write(self, arguments: str) -> str:
        """The text as it is."""
        return arguments

    def grammar(self, arguments: Arguments, grammar: Grammar) -> str:
        """Llguidance's own grammar for the schema."""
        return grammar.part({"json_schema": arguments.schema})

    def free_form(self, name: str, text: Constraint, grammar: Grammar) -> str:
        """The text escaped between quotes."""
        head = f'{quoted("{" + json.dumps(name) + ":")} " "? {quoted(chr(34))}'
        return f"{head} {free_text_in_json(text, grammar)} {quoted(chr(34) + '}')}"


def _object(text: str) -> str:
    """The JSON object that ``text`` stands for. Raises NotACall if it stands for none."""
    value = json_text.parsed(text)
    if isinstance(value, dict):
        return text
    if value == [] or not text.strip():
        return "{}"
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return json.dumps(value[0], ensure_ascii=False)
    raise NotACall

"""Grammars for strings that stand in a reply without JSON's quotes and escapes.

A grammar made here may allow less than the schema, but never more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from server.grammar.keywords import ANNOTATIONS, Schema, types
from server.grammar.lark import Grammar, one_of, quoted, without
from server.grammar.patterns import Untranslatable, whole

_INTEGER = r"-?(0|[1-9][0-9]*)"
_NUMBER = rf"{_INTEGER}(\.[0-9]+)?([eE][+\-]?[0-9]+)?"
# Texts that a reader without types takes for JSON or for a Python constant, by their type there.
_LOOKS = {
    "null": "null|None",
    "boolean": "true|false|True|False",
    "integer": _INTEGER,
    "number": _NUMBER,
    "object": r"\{(?s:.*)",
    "array": r"\[(?s:.*)",
}
_WORDS = {
    "null": ["null"],
    "boolean": ["true", "false"],
    "integer": [_INTEGER],
    "number": [_NUMBER],
}

# Without the control characters that JSON writes by number alone, as in the other dialects.
_ANY_STRING = r"/[^\x00-\x07\x0b\x0e-\x1f]*/"


class Unwritable(Exception):
    """A schema that cannot be enforced in a call syntax; the message is a clause that says why."""


def text_terminal(strings: Sequence[Schema]) -> str:
    """A terminal for texts that match any of the schemas ``strings``, each for strings only."""
    return one_of([_string(schema) for schema in strings])


def loose_terminal(
    strings: Sequence[Schema], others: Sequence[Schema], *, looks: Iterable[str]
) -> str:
    """A terminal for texts that a reader without types reads as a value that matches.

    Excludes strings that look like one of the types ``looks``, which a reader takes them for. Of
    ``others`` it allows scalars without further limits.
    """
    shapes = "|".join(_LOOKS[kind] for kind in sorted(looks))
    words = [each for schema in others for each in _words(schema)]
    return one_of([rf"({text_terminal(strings)} & ~/\s*({shapes})\s*/)", *words])


def compounds(schemas: Sequence[Schema]) -> list[Schema]:
    """What of ``schemas`` matches objects and arrays, which a text shows by its first character."""
    found = []
    for schema in schemas:
        if "enum" in schema:
            values = [each for each in schema["enum"] if isinstance(each, dict | list)]
            found += [{**schema, "enum": values}] if values else []
        elif named := [name for name in types(schema) if name in {"array", "object"}]:
            found.append({**schema, "type": named})
    return found


def writable(strings: Sequence[Schema], ending: str) -> list[Schema]:
    """``strings`` without listed values that hold ``ending``, which no reader finds whole.

    Args:
        strings: Schemas, each for strings only.
        ending: The text that ends a string in the reply, with the white space around it.

    Raises:
        Unwritable: They list values, of which none can be written.
    """
    mark = _mark(ending)
    kept = []
    for schema in strings:
        values = [each for each in schema.get("enum", ()) if mark not in each]
        if values or "enum" not in schema:
            kept.append({**schema, "enum": values} if values else schema)
    if strings and not kept:
        raise Unwritable(f"no string can hold {mark!r}")
    return kept


def ended_by(ending: str, terminal: str, grammar: Grammar) -> str:
    """Text that ``terminal`` matches, up to the first ``ending``, and ``ending`` itself."""
    return grammar.until(f"({terminal} & {without(_mark(ending))})", ending)


def _mark(ending: str) -> str:
    """The part of an ending by which a reader finds it, wherever it stands."""
    return ending.split(maxsplit=1)[0]


def _words(schema: Schema) -> Iterable[str]:
    if "enum" in schema:
        scalars = (each for each in schema["enum"] if not isinstance(each, dict | list))
        return [quoted(json.dumps(each)) for each in scalars]
    if schema.keys() - {"type", *ANNOTATIONS}:
        return []
    return [f"/{word}/" for name in types(schema) for word in _WORDS.get(name, ())]


def _string(schema: Schema) -> str:
    limits = [_string(each) for each in schema.get("allOf", ())]
    if "enum" in schema:
        limits.append(one_of([quoted(each) for each in schema["enum"]]))
    if "minLength" in schema or "maxLength" in schema:
        limits.append(f"/(?s:.){{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}/")
    if "pattern" in schema:
        limits.append(_pattern(schema["pattern"]))
    return f"({' & '.join([*limits, _ANY_STRING])})"


def _pattern(pattern: str) -> str:
    try:
        return f"/(?:{whole(pattern)})/"
    except Untranslatable as error:
        raise Unwritable(f"the keyword 'pattern' cannot be enforced: {error}") from error

"""Grammars for strings that stand in a reply without JSON's quotes and escapes.

A grammar made here may allow less than the schema, but never more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from server.grammar.keywords import ANNOTATIONS, Schema, types
from server.grammar.lark import ANY_TEXT, Grammar, one_of, quoted, without
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

_DATE = r"[0-9]{3}[1-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_TIME = r"([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\.[0-9]{1,6})?(Z|[+\-]([01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": r"P([1-9][0-9]{0,3}[YMWD]|T[1-9][0-9]{0,3}[HMS])",
    "email": rf"[A-Za-z0-9_+\-]{{1,64}}@{_LABEL}(\.{_LABEL}){{1,3}}",
    "hostname": rf"{_LABEL}(\.{_LABEL}){{0,3}}",
    "ipv4": rf"({_BYTE}\.){{3}}{_BYTE}",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "uri": r"[a-z][a-z0-9+.\-]{1,15}:(//)?[A-Za-z0-9._~!$&'()*+,;=:@/?\-]{1,500}",
}


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


def ended_by(ending: str, terminal: str, grammar: Grammar) -> str:
    """Text that ``terminal`` matches, up to the first ``ending``, and ``ending`` itself."""
    body = f"({terminal} & {without(ending.split(maxsplit=1)[0])})"
    return grammar.until(body, ending)


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
    if "format" in schema:
        if schema["format"] not in _FORMATS:
            raise Unwritable(f"the keyword 'format: {schema['format']}' cannot be enforced")
        limits.append(_pattern(f"^(?:{_FORMATS[schema['format']]})$"))
    return f"({' & '.join(limits or [ANY_TEXT])})"


def _pattern(pattern: str) -> str:
    try:
        return f"/(?:{whole(pattern)})/"
    except Untranslatable as error:
        raise Unwritable(f"the keyword 'pattern' cannot be enforced: {error}") from error

"""References to schemas that no value matches, which llguidance refuses wherever they stand."""

from __future__ import annotations

from collections.abc import Collection

from server.grammar.keywords import NAMED_SUBSCHEMAS, WITH_SUBSCHEMAS, Schema
from server.grammar.references import referring
from server.grammar.rewriting import simplified


def without_impossible(root: Schema, definitions: dict[str, Schema | bool]) -> Schema | bool:
    """``root`` with False in place of references to ``definitions`` that no value matches.

    So are the definitions, of which more may turn out to match no value. All are converted.
    """
    gone: set[str] = set()
    made: Schema | bool = root
    while new := {referring(name) for name, each in definitions.items() if each is False} - gone:
        gone |= new
        made = _without(new, made)
        for name, each in definitions.items():
            definitions[name] = _without(new, each)
    return made


def _without(gone: Collection[str], schema: Schema | bool) -> Schema | bool:
    if isinstance(schema, bool):
        return schema
    if schema.get("$ref") in gone:
        return False
    for keyword in schema.keys() & WITH_SUBSCHEMAS:
        value = schema[keyword]
        if keyword in NAMED_SUBSCHEMAS:
            schema[keyword] = {name: _without(gone, each) for name, each in value.items()}
        elif isinstance(value, list):
            schema[keyword] = [_without(gone, each) for each in value]
        else:
            schema[keyword] = _without(gone, value)
    return simplified(schema)

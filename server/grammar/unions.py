"""Schemas taken apart into alternatives, for dialects that write strings without quotes."""

from __future__ import annotations

from typing import Any

from server.grammar.keywords import ENFORCED, Schema, types
from server.grammar.raw_text import Unwritable
from server.grammar.references import resolve

_OTHER_TYPES = ["null", "boolean", "object", "array", "number"]
# References and single-schema lists followed in a row, which ends circles; a choice.
_MOST_HOPS = 50


def resolved(schema: Any, root: Schema) -> Any:
    """``schema`` after following references, and ``allOf`` with a single schema.

    Raises:
        Unwritable: Other keywords stand beside a reference, or the chain is too long.
    """
    for _ in range(_MOST_HOPS):
        if not isinstance(schema, dict):
            return schema
        alone = len(schema.keys() & ENFORCED) == 1
        if "$ref" in schema:
            if not alone:
                raise Unwritable("the keyword '$ref' cannot be enforced beside others")
            schema = resolve(schema["$ref"], root)
        elif len(schema.get("allOf", ())) == 1 and alone:
            (schema,) = schema["allOf"]
        else:
            return schema
    raise Unwritable("the references ('$ref') form too long a chain")


def split_union(schema: Any, root: Schema) -> tuple[list[Schema], list[Schema]]:
    """Split a schema into alternatives: those that match strings, and those that match the rest.

    Raises:
        Unwritable: The schema combines others in a way that cannot be taken apart.
    """
    strings: list[Schema] = []
    others: list[Schema] = []
    # A union that is reached again, perhaps from inside itself, has no more alternatives.
    seen: set[int] = set()
    waiting = [schema]
    while waiting:
        alternative = resolved(waiting.pop(), root)
        if isinstance(alternative, dict) and "anyOf" in alternative:
            if len(alternative.keys() & ENFORCED) > 1:
                raise Unwritable("the keyword 'anyOf' cannot be enforced beside others")
            if id(alternative) not in seen:
                seen.add(id(alternative))
                waiting += reversed(alternative["anyOf"])
        else:
            as_string, as_other = _split(alternative)
            strings += as_string
            others += as_other
    return strings, others


def _split(schema: Any) -> tuple[list[Schema], list[Schema]]:
    """As `split_union`, for a schema without ``anyOf``; no or one alternative each."""
    if not isinstance(schema, dict):
        return ([{}], [{"type": _OTHER_TYPES}]) if schema else ([], [])
    kinds = types(schema) or ["string", *_OTHER_TYPES]
    if "string" in kinds and (combining := sorted({"allOf", "oneOf"} & schema.keys())):
        raise Unwritable(f"the keyword '{combining[0]}' cannot be enforced")
    if {"const", "enum"} <= schema.keys():
        raise Unwritable("the keyword 'const' cannot be enforced beside 'enum'")
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    others = [name for name in kinds if name != "string"]
    if values is None:
        return (
            [{**schema, "type": "string"}] if "string" in kinds else [],
            [{**schema, "type": others[0] if len(others) == 1 else others}] if others else [],
        )
    strings = [each for each in values if isinstance(each, str)]
    rest = [each for each in values if not isinstance(each, str)]
    return (
        [{**schema, "type": "string", "enum": strings}] if strings and "string" in kinds else [],
        [{**schema, "type": others, "enum": rest}] if rest and others else [],
    )

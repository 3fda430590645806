"""Schemas in the words of draft 2020-12, whatever draft of the standard or of OpenAPI they follow.

Nulls stand for keywords that are not there: serializers of some languages write them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from server.core.quoted_numbers import unquoted
from server.grammar.keywords import TYPES, Schema, types

_COUNTS = (
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minContains", "maxContains"),
)
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_SWITCHES = (
    *("additionalProperties", "unevaluatedProperties", "required", "uniqueItems", "nullable"),
    *("exclusiveMinimum", "exclusiveMaximum"),
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SINGLE = (
    *("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
)


def spelled_as_today(schema: Schema) -> None:
    """Drop nulls, and write the keywords of earlier drafts and of OpenAPI as those of 2020-12."""
    for keyword in [key for key, value in schema.items() if value is None and key != "const"]:
        del schema[keyword]
    _plain_values(schema)
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
            schema[exclusive] = schema.pop(bound)
    if "divisibleBy" in schema:
        schema.setdefault("multipleOf", schema.pop("divisibleBy"))
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema.pop("additionalItems")
    schema.pop("additionalItems", None)
    _required_by_the_properties(schema)
    _types(schema)


def _plain_values(schema: Schema) -> None:
    """Write values as they are meant: what is quoted, PHP's empty lists, counts with a fraction."""
    for keyword in _NAMED:
        if schema.get(keyword) == []:
            schema[keyword] = {}
    _switches(schema)
    for keyword in (*_COUNTS, *_BOUNDS):
        if keyword in schema:
            schema[keyword] = unquoted(schema[keyword])
    for keyword in _COUNTS:
        if isinstance(count := schema.get(keyword), float) and count.is_integer():
            schema[keyword] = int(count)
    if isinstance(name := schema.get("required"), str):
        schema["required"] = [name]


def _switches(schema: Schema) -> None:
    for keyword in _SWITCHES:
        word = schema.get(keyword)
        if word not in ("true", "false"):
            continue
        if keyword != "required" or word not in schema.get("properties", ()):
            schema[keyword] = word == "true"


def is_on(switch: object) -> bool:
    """Whether a switch of a schema is on, also in quotes."""
    return switch is True or switch == "true"


def required_names(required: object) -> list[str]:
    """The names in a keyword ``required``: those in a list, or one alone, but no switch."""
    if isinstance(required, str):
        return [] if required in ("true", "false") else [required]
    names = required if isinstance(required, list) else []
    return [name for name in names if isinstance(name, str)]


def _required_by_the_properties(schema: Schema) -> None:
    """``required: true`` inside a property (draft 3) names it in ``required``."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return
    named = [
        name
        for name, each in properties.items()
        if isinstance(each, dict) and is_on(each.get("required"))
    ]
    if named and isinstance(schema.get("required", []), list | bool):
        listed = schema.get("required", [])
        schema["required"] = [*(listed if isinstance(listed, list) else []), *named]


_OTHER_NAMES = {
    **dict.fromkeys(("int", "long", "short", "byte", "bigint"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    **dict.fromkeys(("dict", "map", "hashmap"), "object"),
    **dict.fromkeys(("list", "tuple", "set", "arraylist"), "array"),
    **dict.fromkeys(("str", "char", "text", "date", "datetime"), "string"),
    "bool": "boolean",
    "none": "null",
}
"""Types as programming languages name them, which people write by hand."""


def type_names(named: object) -> object:
    """The value of ``type`` in the standard's names; None where it allows every type.

    Google's function declarations write STRING, other languages str or String; draft 3 has a type
    "any". What is no type at all stays as it is.
    """
    if isinstance(named, str):
        lower = _OTHER_NAMES.get(named.lower(), named.lower())
        return None if lower == "any" else lower if lower in TYPES else named
    if not isinstance(named, list):
        return named
    found = [type_names(each) for each in named]
    return None if None in found else found


_OF_TYPE: dict[object, Schema] = {name: {"type": name} for name in TYPES}


def spelled_out(schema: Any) -> Any:
    """The name of a type alone as the schema of that type, as people write it by hand."""
    if not isinstance(schema, str):
        return schema
    named = type_names(schema)
    return True if named is None else _OF_TYPE.get(named, schema)


def _types(schema: Schema) -> None:
    if isinstance(schema.get("required"), bool):
        del schema["required"]
    if "type" in schema:
        schema["type"] = type_names(schema["type"])
        if schema["type"] is None:
            del schema["type"]


def nullable(schema: Schema) -> bool:
    """Take OpenAPI's ``nullable`` away, and say so in ``type`` where that can be.

    Returns:
        Whether null is still to be added, as an alternative to the rest.
    """
    if schema.pop("nullable", False) is not True or "null" in types(schema):
        return False
    # Zod writes null itself as ``type: string, nullable, enum: [null]``.
    listed = [schema["const"]] if "const" in schema else schema.get("enum", [None])
    if "type" in schema and None in listed and not schema.keys() & {"allOf", "anyOf", "oneOf"}:
        schema["type"] = [*types(schema), "null"]
        return False
    return True


def in_todays_words(schema: Any, is_pattern: Callable[[str], bool]) -> Any:
    """A copy of ``schema`` in which everything is said in keywords of draft 2020-12.

    It serves a validator, which knows them all. Nothing is left out but patterns that it cannot
    read, for which ``is_pattern`` is false: without them it checks the rest.
    """
    schema = spelled_out(schema)
    if not isinstance(schema, dict):
        return schema
    made = {key: each for key, each in schema.items() if key not in {"$schema", "$id", "id"}}
    spelled_as_today(made)
    _dependencies(made)
    _readable_patterns(made, is_pattern)
    for keyword in [key for key in made if key in {*_LISTS, *_NAMED, *_SINGLE}]:
        value = made[keyword]
        if keyword in _NAMED and isinstance(value, dict):
            made[keyword] = {
                name: in_todays_words(each, is_pattern) for name, each in value.items()
            }
        elif keyword in _LISTS and isinstance(value, list):
            made[keyword] = [in_todays_words(each, is_pattern) for each in value]
        else:
            made[keyword] = in_todays_words(value, is_pattern)
    return {"anyOf": [made, {"type": "null"}]} if nullable(made) else made


_WRITTEN = {
    **dict.fromkeys(("dependentRequired", "dependentSchemas"), "dependencies"),
    "multipleOf": "divisibleBy",
    "prefixItems": "items",
    "items": "additionalItems",
}
"""The keywords of earlier drafts for those of 2020-12."""


def as_written(path: Sequence[str | int], schema: Any) -> list[str | int]:
    """``path``, which leads into `in_todays_words` of ``schema``, as one into ``schema``."""
    found: list[str | int] = []
    steps = iter(path)
    for step in steps:
        if isinstance(schema, dict):
            if step == "anyOf" and step not in schema and "nullable" in schema:
                next(steps, None)
                continue
            listed = step == "items" and isinstance(schema.get(step), list)
            kept = step in schema and not listed
            found.append(step if kept else _WRITTEN.get(str(step), step))
        else:
            found.append(step)
        try:
            schema = schema[found[-1]]
        except (LookupError, TypeError):
            schema = None
    return found


def _readable_patterns(schema: Schema, is_pattern: Callable[[str], bool]) -> None:
    if isinstance(pattern := schema.get("pattern"), str) and not is_pattern(pattern):
        del schema["pattern"]
    named = schema.get("patternProperties")
    if isinstance(named, dict) and not all(map(is_pattern, named)):
        schema["patternProperties"] = {key: named[key] for key in named if is_pattern(key)}
        # Names that match what is left out would count as additional.
        schema.pop("additionalProperties", None)
        schema.pop("unevaluatedProperties", None)


def _dependencies(schema: Schema) -> None:
    dependencies = schema.pop("dependencies", None)
    for name, each in dependencies.items() if isinstance(dependencies, dict) else ():
        keyword = "dependentRequired" if isinstance(each, list) else "dependentSchemas"
        schema[keyword] = {**schema.get(keyword, {}), name: each}

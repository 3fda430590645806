"""Exact rewrites: keywords in another form that can be enforced and means the same.

Each function takes one schema, whose parts stay as they are, and changes it in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from server.grammar.json_values import OF_TEXTS, equal, is_of, text_check
from server.grammar.keywords import TYPES, Schema, of_other_types, types
from server.grammar.patterns import text_lengths

WITHOUT_LIMITS = {"title", "description", "$comment", "$id", "$schema", "default", "examples"}


def without_effect(schema: Schema) -> None:
    """Drop keywords that rule nothing out as they stand."""
    for keyword in of_other_types(schema):
        schema.pop(keyword, None)
    # Alone, it only says which properties and items count as evaluated.
    if not schema.keys() & {"then", "else", "unevaluatedProperties", "unevaluatedItems"}:
        schema.pop("if", None)
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies", "patternProperties"):
        if schema.get(keyword) == {}:
            del schema[keyword]
    if schema.get("allOf") == []:
        del schema["allOf"]


def simplified(schema: Schema) -> Schema | bool:
    """``schema``, whose parts are converted, without alternatives that do not count.

    False if it is plain now that no value matches.
    """
    if False in schema.get("allOf", ()):
        return False
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            schema[keyword] = [each for each in schema[keyword] if each is not False]
            if not schema[keyword]:
                return False
    properties = schema.get("properties", {})
    if types(schema) == ["object"] and any(
        properties.get(name) is False for name in schema.get("required", ())
    ):
        return False
    if any(each in (True, {}) for each in schema.get("anyOf", ())):
        del schema["anyOf"]
    if "allOf" in schema:
        schema["allOf"] = [each for each in schema["allOf"] if each not in (True, {})]
        if not schema["allOf"]:
            del schema["allOf"]
    return schema


def values_of_other_types(schema: Schema) -> bool:
    """Whether ``const`` or ``enum`` has values, and none of a type that ``type`` names."""
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    named = types(schema)
    return bool(values and named) and not any(is_of(each, named) for each in values)


def single_values(schema: Schema) -> bool:
    """Leave of ``const`` and ``enum`` what the plain keywords beside them allow, as one ``enum``.

    Returns:
        Whether a value is left.
    """
    if "const" not in schema and not schema.get("enum"):
        return True
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    if "const" in schema and "enum" in schema:
        values = [each for each in values if equal(each, schema["const"])]
    texts = text_check(schema)
    fitting = [each for each in values if _fits(each, schema) and (texts is None or texts(each))]
    if "enum" in schema:
        schema["enum"] = fitting
        schema.pop("const", None)
    if fitting:
        for keyword in (*_PLAIN, *(OF_TEXTS if texts is not None else ())):
            schema.pop(keyword, None)
    return bool(fitting)


_PLAIN: dict[str, tuple[type | tuple[type, ...], Callable[[Any, Any], bool]]] = {
    "minLength": (str, lambda value, limit: len(value) >= limit),
    "maxLength": (str, lambda value, limit: len(value) <= limit),
    "minimum": ((int, float), lambda value, limit: value >= limit),
    "maximum": ((int, float), lambda value, limit: value <= limit),
    "exclusiveMinimum": ((int, float), lambda value, limit: value > limit),
    "exclusiveMaximum": ((int, float), lambda value, limit: value < limit),
    "minItems": (list, lambda value, limit: len(value) >= limit),
    "maxItems": (list, lambda value, limit: len(value) <= limit),
    "minProperties": (dict, lambda value, limit: len(value) >= limit),
    "maxProperties": (dict, lambda value, limit: len(value) <= limit),
}


def _fits(value: Any, schema: Schema) -> bool:
    named = types(schema)
    if named and not is_of(value, named):
        return False
    return all(
        check(value, schema[keyword])
        for keyword, (kind, check) in _PLAIN.items()
        if keyword in schema and isinstance(value, kind) and not isinstance(value, bool)
    )


_OF_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}


def with_shorter_numbers(schema: Schema) -> Schema:
    """``schema``, and the numbers that the compiler leaves out of it.

    It compares digit by digit, and takes no end within the digits of a bound: with a ``maximum`` of
    0.95, 0.9 could be written as 0.90 only.
    """
    if not schema.keys() <= {*_OF_NUMBERS, "type"} or "number" not in types(schema):
        return schema
    bounds = [schema[keyword] for keyword in _OF_NUMBERS - {"multipleOf"} if keyword in schema]
    shorter = {each for bound in bounds for each in _shorter(bound) if _fits(each, schema)}
    factor = Decimal(repr(schema.get("multipleOf", 0)))
    found = sorted(each for each in shorter if not factor or not Decimal(repr(each)) % factor)
    return {"type": schema["type"], "anyOf": [schema, {"enum": found}]} if found else schema


def _shorter(bound: float) -> Iterator[float]:
    """The numbers with fewer decimals than ``bound``, but at least one, and the same digits."""
    whole, _, decimals = repr(bound).partition(".")
    for length in range(1, len(decimals) if decimals.isdecimal() else 0):
        yield float(f"{whole}.{decimals[:length]}")


def possible_texts(schema: Schema) -> bool:
    """Exclude strings where none has both a length that is allowed and one of the pattern's.

    Returns:
        Whether a value is left that can match.
    """
    if "pattern" not in schema:
        return True
    least, most = text_lengths(schema["pattern"])
    if least <= schema.get("maxLength", least) and (
        most is None or schema.get("minLength", 0) <= most
    ):
        return True
    _without_types(schema, {"string"})
    for keyword in ("pattern", "minLength", "maxLength"):
        schema.pop(keyword, None)
    return bool(schema["type"])


def negation(schema: Schema) -> bool:
    """Write a simple ``not`` with other keywords.

    Returns:
        Whether a value is left that can match.
    """
    negated = schema.get("not")
    if negated is False:
        del schema["not"]
    if negated is True:
        return False
    if not isinstance(negated, dict):
        return True
    limiting = negated.keys() - WITHOUT_LIMITS
    if limiting == {"type"} and _can_be_excluded(set(types(negated)), types(schema)):
        _without_types(schema, set(types(negated)))
        del schema["not"]
    elif limiting in ({"enum"}, {"const"}) and isinstance(schema.get("enum"), list):
        _without_values(schema, negated["enum"] if "enum" in negated else [negated["const"]])
    return bool(limiting) and schema.get("type") != [] and schema.get("enum") != []


def _can_be_excluded(excluded: set[str], left: list[str]) -> bool:
    """Whether types can be left out of ``left``: integers not of numbers, as no type has the rest.

    ``left`` is empty where all types are allowed.
    """
    if not excluded or not excluded <= TYPES:
        return False
    return excluded & {"integer", "number"} != {"integer"} or bool(left and "number" not in left)


def _without_types(schema: Schema, excluded: set[str]) -> None:
    gone = excluded | ({"integer"} if "number" in excluded else set())
    left = types(schema) or sorted(TYPES - {"integer"})
    schema["type"] = [each for each in left if each not in gone]


def _without_values(schema: Schema, excluded: object) -> None:
    if isinstance(excluded, list):
        schema["enum"] = [
            each for each in schema["enum"] if not any(equal(each, no) for no in excluded)
        ]
        del schema["not"]


def unevaluated(schema: Schema) -> None:
    """Write ``unevaluatedProperties`` and ``unevaluatedItems`` as the keywords for what is left.

    They mean the same where no other schema applies to the same value.
    """
    applied = {"allOf", "anyOf", "oneOf", "$ref", "not", "if", "dependentSchemas", "contains"}
    applied |= {"$dynamicRef", "$recursiveRef"}
    for keyword, left in (
        ("unevaluatedProperties", "additionalProperties"),
        ("unevaluatedItems", "items"),
    ):
        if keyword not in schema:
            continue
        if schema[keyword] is True or schema[keyword] == {} or left in schema:
            del schema[keyword]
        elif not schema.keys() & applied:
            schema[left] = schema.pop(keyword)


def counted_properties(schema: Schema) -> bool:
    """Drop counts of properties that the others keywords imply, or write them with ``required``.

    llguidance counts properties only where all those listed are required, and it counts a name that
    the model writes twice as two, of which readers see one.

    Returns:
        Whether what is left can be enforced.
    """
    required = set(schema.get("required", ()))
    properties = schema.get("properties", {})
    closed = schema.get("additionalProperties", True) is False and not schema.get(
        "patternProperties"
    )
    least, most = schema.get("minProperties", 0), schema.get("maxProperties")
    if least <= len(required):
        schema.pop("minProperties", None)
    if most is not None and closed and most >= len(properties):
        del schema["maxProperties"]
    if "minProperties" in schema and least == 1 and closed and "anyOf" not in schema:
        names = [name for name, each in properties.items() if each is not False]
        if 0 < len(names) <= _MOST_ALTERNATIVES and types(schema) == ["object"]:
            del schema["minProperties"]
            schema["anyOf"] = [{"required": [name]} for name in names]
    counted = schema.keys() & {"minProperties", "maxProperties"}
    enough = schema.get("minProperties", 0) <= len(required) + 1
    return not counted or (enough and properties.keys() <= required)


# Each becomes an alternative of its own: a choice.
_MOST_ALTERNATIVES = 20

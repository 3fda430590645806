"""The keywords of one schema that are enforced only in some forms, and what is left of the others.

Each function takes one schema and its path, and changes it in place. What it cannot keep it gives
up by name, after putting the strongest thing that can be enforced in its place.
"""

from __future__ import annotations

from server.core.errors import Locator
from server.grammar import formats, keywords, rewriting
from server.grammar.json_values import inexact, inexact_factor
from server.grammar.keywords import Schema
from server.grammar.leniency import Doubtful, Leniency, pointer
from server.grammar.patterns import Untranslatable, anchored, matches_nothing

# Whole numbers from here on exceed 64 bits, and readers keep them as doubles or not at all: a bound
# out there excludes nothing that can be read.
_BEYOND_READERS = 2**63 - 1
# No text of an answer is that long, and the compiler cannot read longer counts.
_BEYOND_TEXTS = 2**31


def settle_given_up(schema: Schema, path: Locator, leniency: Leniency) -> None:
    """The keywords that a weaker schema does without."""
    found = sorted(schema.keys() & leniency.given_up(path))
    for keyword in found:
        leniency.give_up((*path, keyword))
        del schema[keyword]
    # Those could allow properties that the keywords left do not list.
    if "additionalProperties" in schema and set(found) & _NAMING:
        schema["additionalProperties"] = True


_NAMING = {"patternProperties", "allOf", "anyOf", "oneOf"}


def settle_values(schema: Schema, path: Locator, leniency: Leniency) -> bool:
    """``const``, ``enum``, ``type`` and bounds of numbers; whether a value is left."""
    for keyword in ("enum", "type", "anyOf", "oneOf"):
        if schema.get(keyword) == []:
            leniency.give_up(
                (*path, keyword), f"The keyword '{keyword}' is empty (at {pointer(path)})."
            )
            del schema[keyword]
    for bound, beyond in (
        *(("maximum", 1), ("exclusiveMaximum", 1), ("minimum", -1), ("exclusiveMinimum", -1)),
    ):
        if bound in schema and schema[bound] * beyond >= _BEYOND_READERS:
            del schema[bound]
    for keyword in sorted(schema.keys() & keywords.WITH_VALUES):
        problem = inexact(schema[keyword])
        if keyword == "multipleOf":
            problem = problem or inexact_factor(schema[keyword])
        if problem:
            leniency.give_up(
                (*path, keyword),
                f"The keyword '{keyword}' has {problem}, which cannot be enforced "
                f"(at {pointer(path)}).",
            )
            del schema[keyword]
    if rewriting.values_of_other_types(schema):
        leniency.give_up(
            (*path, "type"),
            f"The keyword '{'enum' if 'enum' in schema else 'const'}' has no value of the type "
            f"beside it (at {pointer(path)}).",
        )
        del schema["type"]
    return rewriting.single_values(schema)


def settle_texts(schema: Schema, path: Locator, leniency: Leniency) -> bool:
    """``format``, ``pattern`` and ``patternProperties``; whether a value is left that can match."""
    if schema.get("maxLength", 0) >= _BEYOND_TEXTS:
        del schema["maxLength"]
    named = "pattern" if "pattern" in schema else "format"
    lengths = _LENGTHS & schema.keys()
    form = schema.get("format")
    if form in formats.NOT_ENFORCED:
        leniency.give_up(
            (*path, "format"),
            f"The JSON Schema keyword 'format: {form}' cannot be enforced (at {pointer(path)}).",
        )
    if "pattern" in schema:
        pattern = _enforceable(schema["pattern"], (*path, "pattern"), leniency)
        if pattern is None:
            del schema["pattern"]
        else:
            schema["pattern"] = pattern
    formats.as_pattern(schema)
    if "patternProperties" in schema:
        _settle_pattern_properties(schema, (*path, "patternProperties"), leniency)
    _note_doubtful(schema, path, named, lengths, leniency)
    return rewriting.possible_texts(schema)


def _note_doubtful(
    schema: Schema, path: Locator, named: str, lengths: frozenset[str], leniency: Leniency
) -> None:
    """Note the texts of ``schema``, which are those of the keyword ``named``, and its names."""
    if "pattern" in schema:
        limits = {key: schema[key] for key in _OF_TEXTS & schema.keys()}
        also = (each for each in schema.get("allOf", ()) if isinstance(each, dict))
        limits["allOf"] = [each for each in also if each.keys() <= _OF_TEXTS]
        leniency.doubtful[*path, named] = Doubtful({**limits, "type": "string"}, lengths)
    if names := schema.get("patternProperties"):
        leniency.doubtful[*path, "patternProperties"] = Doubtful(
            {"type": "object", "patternProperties": dict.fromkeys(names, True)}
        )


_LENGTHS = frozenset({"minLength", "maxLength"})
_OF_TEXTS = {"pattern", *_LENGTHS}


def _settle_pattern_properties(schema: Schema, path: Locator, leniency: Leniency) -> None:
    kept: Schema = {}
    for pattern, part in schema["patternProperties"].items():
        enforced = _enforceable(pattern, (*path, pattern), leniency)
        if enforced is None:
            # Names that match it are additional now, and any value may be theirs.
            schema["additionalProperties"] = True
        else:
            # Two patterns may say the same.
            kept[enforced] = {"allOf": [kept[enforced], part]} if enforced in kept else part
    schema["patternProperties"] = kept


def _enforceable(pattern: str, path: Locator, leniency: Leniency) -> str | None:
    """``pattern`` for the compiler; None if it was given up.

    So is one that no text matches: it was written for another language, which has delimiters.
    """
    try:
        if matches_nothing(pattern):
            raise Untranslatable("no text matches it")
        return anchored(pattern)
    except Untranslatable as error:
        leniency.give_up(
            path,
            f"The pattern {pattern[:100]!r} cannot be enforced: {error} (at {pointer(path)}).",
        )
        return None


def settle_arrays(schema: Schema, path: Locator, leniency: Leniency, items: object) -> None:
    """``uniqueItems`` and ``contains``; ``items`` is the schema of the items without references."""
    most = schema.get("maxItems")
    if schema.get("uniqueItems") is True and (most is None or most > 1):
        leniency.give_up((*path, "uniqueItems"))
        values = items.get("enum") if isinstance(items, dict) else None
        if isinstance(values, list) and values and "prefixItems" not in schema:
            schema["maxItems"] = len(values) if most is None else min(most, len(values))
            schema["minItems"] = min(schema.get("minItems", 0), schema["maxItems"])
    if "contains" in schema:
        _settle_contains(schema, path, leniency)


def _settle_contains(schema: Schema, path: Locator, leniency: Leniency) -> None:
    least, most = schema.get("minContains", 1), schema.get("maxContains")
    counts_all = schema.pop("contains") in (True, {})
    if not counts_all and (least > 0 or most is not None):
        leniency.give_up((*path, "contains"))
    if counts_all and most is not None:
        schema["maxItems"] = min(most, schema.get("maxItems", most))
    if schema.get("minItems", 0) < least <= schema.get("maxItems", least):
        schema["minItems"] = least


def settle_objects(schema: Schema, path: Locator, leniency: Leniency) -> None:
    """``required``, and counts of properties."""
    if "required" in schema:
        schema["required"] = list(dict.fromkeys(schema["required"]))
    closed = schema.get("additionalProperties", True) is False
    if closed and not schema.get("patternProperties"):
        listed = schema.get("properties", {})
        if missing := [name for name in schema.get("required", ()) if name not in listed]:
            leniency.give_up(
                (*path, "required"),
                f"The keyword 'required' names a property that 'additionalProperties' forbids: "
                f"{missing[0][:50]!r} (at {pointer(path)}).",
            )
            schema["required"] = [name for name in schema["required"] if name in listed]
    if not rewriting.counted_properties(schema):
        for keyword in ("minProperties", "maxProperties"):
            if keyword in schema:
                leniency.give_up(
                    (*path, keyword),
                    f"The keyword '{keyword}' cannot be enforced beside properties that may be "
                    f"left out, nor for more than the 'required' ones and one other "
                    f"(at {pointer(path)}).",
                )
                del schema[keyword]

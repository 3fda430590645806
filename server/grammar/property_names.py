"""``propertyNames``, written with keywords that can be enforced."""

from __future__ import annotations

from server.grammar import formats
from server.grammar.keywords import Schema, types
from server.grammar.rewriting import WITHOUT_LIMITS

_OF_OBJECTS = ("properties", "patternProperties")


def property_names(schema: Schema, names: object) -> bool:
    """Write ``propertyNames`` with other keywords.

    Args:
        schema: The schema with ``propertyNames``.
        names: The value of the keyword, with its references followed.

    Returns:
        Whether it was rewritten.
    """
    if not isinstance(names, dict):
        return names is True or (names is False and _only_named(schema, []))
    if types(names) not in ([], ["string"]):
        return False
    if (listed := _listed_names(names)) is not None:
        return _only_named(schema, listed)
    limiting = names.keys() - WITHOUT_LIMITS - {"type"}
    pattern = _name_pattern(names, limiting) if limiting else None
    if pattern is None or any(keyword in schema for keyword in _OF_OBJECTS):
        return not limiting
    schema["patternProperties"] = {pattern: schema.get("additionalProperties", True)}
    schema["additionalProperties"] = False
    return True


def _listed_names(names: Schema) -> list[str] | None:
    """The names that a schema lists; None if it does not just list some."""
    limiting = names.keys() - WITHOUT_LIMITS - {"type"}
    if limiting == {"const"}:
        return [names["const"]] if isinstance(names["const"], str) else []
    if limiting == {"enum"} and isinstance(names["enum"], list):
        return [each for each in names["enum"] if isinstance(each, str)]
    for keyword in ("anyOf", "oneOf"):
        if limiting == {keyword} and isinstance(names[keyword], list):
            found = [
                _listed_names(each) if isinstance(each, dict) else None for each in names[keyword]
            ]
            if all(each is not None for each in found):
                return [name for each in found for name in each or ()]
    return None


def _only_named(schema: Schema, listed: list[str]) -> bool:
    properties = schema.get("properties", {})
    if schema.get("patternProperties") or not isinstance(properties, dict):
        return False
    others = schema.get("additionalProperties", True)
    allowed = dict.fromkeys(listed)
    schema["properties"] = {
        **{name: each if name in allowed else False for name, each in properties.items()},
        **{name: others for name in allowed if name not in properties},
    }
    schema["additionalProperties"] = False
    return True


def _name_pattern(names: Schema, limiting: set[str]) -> str | None:
    if limiting == {"pattern"} and isinstance(names["pattern"], str):
        return names["pattern"]
    if limiting == {"format"}:
        written: Schema = {"format": names["format"]}
        formats.as_pattern(written)
        # Names cannot have a pattern and a length (of host names).
        return written.get("pattern") if len(written) == 1 else None
    if limiting <= {"minLength", "maxLength"}:
        return rf"^[\s\S]{{{names.get('minLength', 0)},{names.get('maxLength', '')}}}$"
    return None

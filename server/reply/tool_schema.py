"""The schema of a tool's arguments, and the error that refuses it."""

from __future__ import annotations

from typing import Any, NamedTuple

from server.core.errors import InvalidConstraint, Locator
from server.core.request import Tool
from server.grammar.earlier_drafts import required_names
from server.grammar.json_schema import enforceable
from server.grammar.keywords import Schema, types
from server.grammar.leniency import NOT_WEAKENED, Leniency, Weakness
from server.grammar.references import References
from server.grammar.rewriting import WITHOUT_LIMITS

_COMBINING = ("allOf", "anyOf", "oneOf")
_OPEN_ENDED = {"$ref", "enum", "const", "patternProperties", "unevaluatedProperties", "if", "not"}


class Arguments(NamedTuple):
    """What a call of a tool must match.

    Attributes:
        tool: The tool.
        schema: A schema for objects, as `enforceable` makes it.
        leniency: Takes what a dialect gives up; its paths begin inside the tool's parameters.
    """

    tool: Tool
    schema: Schema
    leniency: Leniency


def arguments_of(tool: Tool, index: int, weakness: Weakness = NOT_WEAKENED) -> Arguments:
    """The arguments of a tool.

    They are always an object. If the schema lists properties, others are allowed only where it says
    so: the tool could not use them.

    Args:
        tool: The tool.
        index: Its place among the request's tools.
        weakness: How weak its schema is made.

    Raises:
        InvalidConstraint: The schema cannot be used, or is strict and cannot be enforced; the
            message names the keyword and the tool.
    """
    parameters = tool.parameters or {"properties": {}}
    root, place = _without_root_reference(parameters)
    leniency = Leniency(strict=tool.strict, weakness=weakness, root=place)
    try:
        schema = enforceable(_closed(root), leniency)
        if "type" in schema and "object" not in types(schema):
            raise InvalidConstraint("The keyword 'type' must be 'object' for a tool's arguments.")
    except InvalidConstraint as error:
        raise unenforceable(tool, index, error.message) from error
    schema["type"] = "object"
    return Arguments(tool, schema, leniency)


def _without_root_reference(parameters: dict[str, Any]) -> tuple[dict[str, Any], Locator]:
    """``parameters`` with the schema that they are a reference to in its place, and its place.

    Recursive models are written so. Otherwise it would not show which properties are listed.
    """
    beside = parameters.keys() - WITHOUT_LIMITS - _DEFINITIONS
    alone = parameters.get("allOf")
    reference = alone[0] if isinstance(alone, list) and len(alone) == 1 else parameters
    if len(beside) > 1 or not isinstance(reference, dict):
        return parameters, ()
    if not isinstance(reference.get("$ref"), str) or reference.keys() - WITHOUT_LIMITS - {
        "$ref",
        *_DEFINITIONS,
    }:
        return parameters, ()
    try:
        target, place = References(parameters).resolve(reference["$ref"], reference)
    except InvalidConstraint:
        return parameters, ()
    if not isinstance(target, dict) or target.keys() & {"$id", "id", *_DEFINITIONS}:
        return parameters, ()
    definitions = {key: each for key, each in parameters.items() if key in _DEFINITIONS}
    return {**definitions, **target}, place


_DEFINITIONS = {"$defs", "definitions", "$schema"}


def _closed(parameters: dict[str, Any]) -> dict[str, Any]:
    """``parameters``, closed to properties that they do not list unless they speak of others."""
    properties = parameters.get("properties")
    properties = {} if properties == [] else properties  # as PHP writes it
    if not isinstance(properties, dict) or parameters.get("additionalProperties") is not None:
        return parameters
    if parameters.keys() & _OPEN_ENDED or not _named_below(parameters) <= properties.keys():
        return parameters
    missing = [
        name for name in required_names(parameters.get("required")) if name not in properties
    ]
    named = dict.fromkeys(missing, True)
    return {**parameters, "properties": {**properties, **named}, "additionalProperties": False}


def _named_below(schema: dict[str, Any]) -> set[str]:
    """The properties that the schemas combined in ``schema`` name; a reference may name any."""
    named: set[str] = set()
    for keyword in _COMBINING:
        branches = schema.get(keyword)
        for branch in branches if isinstance(branches, list) else []:
            if isinstance(branch, dict):
                named |= _named_below(branch)
                listed = branch.get("properties")
                named.update(listed if isinstance(listed, dict) else ())
                named.update(required_names(branch.get("required")))
                if branch.keys() & _OPEN_ENDED or "additionalProperties" in branch:
                    named.add("")
    return named


def unenforceable(tool: Tool, index: int, reason: str) -> InvalidConstraint:
    """The refusal of a tool, the request's number ``index``, whose schema cannot be enforced."""
    name = tool.name_in_request or tool.name
    message = f"The arguments of the tool {name} cannot be enforced. {reason}"
    return InvalidConstraint(message, at=("tools", index))


def ungrammatical(tool: Tool, index: int, reason: str) -> InvalidConstraint:
    """The refusal of a free-form tool, the request's number ``index``, for its grammar."""
    assert tool.grammar is not None
    name = tool.name_in_request or tool.name
    message = f"The {tool.grammar.kind} grammar of the tool {name} cannot be enforced: {reason}"
    return InvalidConstraint(message, at=("tools", index))

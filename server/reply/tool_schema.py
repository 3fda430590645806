"""The schema of a tool's arguments, and the error that refuses it."""

from __future__ import annotations

from typing import Any, NamedTuple

from server.core.errors import InvalidConstraint
from server.core.request import Tool
from server.grammar.json_schema import enforceable
from server.grammar.keywords import Schema, types
from server.grammar.leniency import Leniency

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


def arguments_of(tool: Tool, index: int, weakness: int = 0) -> Arguments:
    """The arguments of a tool.

    They are always an object. If the schema lists properties, others are allowed only where it says
    so: the tool could not use them.

    Args:
        tool: The tool.
        index: Its place among the request's tools.
        weakness: How weak its schema is made (see `Leniency`).

    Raises:
        InvalidConstraint: The schema cannot be used, or is strict and cannot be enforced; the
            message names the keyword and the tool.
    """
    leniency = Leniency(strict=tool.strict, weakness=weakness)
    try:
        schema = enforceable(_closed(tool.parameters or {"properties": {}}), leniency)
        if "type" in schema and "object" not in types(schema):
            raise InvalidConstraint("The keyword 'type' must be 'object' for a tool's arguments.")
    except InvalidConstraint as error:
        raise unenforceable(tool, index, error.message) from error
    schema["type"] = "object"
    return Arguments(tool, schema, leniency)


def _closed(parameters: dict[str, Any]) -> dict[str, Any]:
    """``parameters``, closed to properties that they do not list unless they speak of others."""
    properties = parameters.get("properties")
    if not isinstance(properties, dict) or parameters.get("additionalProperties") is not None:
        return parameters
    if parameters.keys() & _OPEN_ENDED or not _named_below(parameters) <= properties.keys():
        return parameters
    required = parameters.get("required")
    missing = required if isinstance(required, list) else []
    named = {name: True for name in missing if isinstance(name, str) and name not in properties}
    return {**parameters, "properties": {**properties, **named}, "additionalProperties": False}


def _named_below(schema: dict[str, Any]) -> set[str]:
    """The properties that the schemas combined in ``schema`` name; a reference may name any."""
    named: set[str] = set()
    for keyword in _COMBINING:
        branches = schema.get(keyword)
        for branch in branches if isinstance(branches, list) else []:
            if isinstance(branch, dict):
                named |= _named_below(branch)
                for listing in (branch.get("properties"), branch.get("required")):
                    names = listing if isinstance(listing, dict | list) else ()
                    named |= {name for name in names if isinstance(name, str)}
                if branch.keys() & _OPEN_ENDED or "additionalProperties" in branch:
                    named.add("")
    return named


def unenforceable(tool: Tool, index: int, reason: str) -> InvalidConstraint:
    """The refusal of a tool, the request's number ``index``, whose schema cannot be enforced."""
    message = f"The arguments of the tool {tool.name} cannot be enforced. {reason}"
    return InvalidConstraint(message, at=("tools", index))


def ungrammatical(tool: Tool, index: int, reason: str) -> InvalidConstraint:
    """The refusal of a free-form tool, the request's number ``index``, for its grammar."""
    assert tool.grammar is not None
    message = (
        f"The {tool.grammar.kind} grammar of the tool {tool.name} cannot be enforced: {reason}"
    )
    return InvalidConstraint(message, at=("tools", index))

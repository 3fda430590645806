"""The schema of a tool's arguments, and the error that refuses it."""

from __future__ import annotations

from server.core.errors import InvalidConstraint
from server.core.request import Tool
from server.grammar.json_schema import enforceable
from server.grammar.keywords import Schema

_COMBINING = ("allOf", "anyOf", "oneOf", "$ref", "enum", "const", "patternProperties")


def arguments_schema(tool: Tool, index: int) -> Schema:
    """The schema of a tool's arguments in the form in which all of it is enforced.

    Arguments are always an object. If the schema lists properties, others are allowed only where
    it says so: the tool could not use them.

    Args:
        tool: The tool.
        index: Its place among the request's tools.

    Raises:
        InvalidConstraint: It cannot be enforced; the message names the keyword and the tool.
    """
    try:
        schema = enforceable(tool.parameters or {"properties": {}})
        if schema.setdefault("type", "object") != "object":
            raise InvalidConstraint("The keyword 'type' must be 'object' for a tool's arguments.")
    except InvalidConstraint as error:
        raise unenforceable(tool, index, error.message) from error
    if "properties" in schema and not schema.keys() & set(_COMBINING):
        schema.setdefault("additionalProperties", False)
    return schema


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

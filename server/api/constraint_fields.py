"""Constraints of the answer that every family takes, as clients of local servers send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from server.api.validation import WireModel
from server.core.errors import InvalidRequest, Locator, path_text
from server.core.request import Constraint


class TextFormat(WireModel):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(WireModel):
    """Any JSON object, or, as llama.cpp's server has it, one that matches ``schema``."""

    model_config = ConfigDict(protected_namespaces=())

    type: Literal["json_object"]
    json_schema: dict[str, Any] | None = Field(None, alias="schema")


class JsonSchema(WireModel):
    """The schema an answer must match; its name has no effect."""

    model_config = ConfigDict(protected_namespaces=())

    name: Annotated[str, Field(max_length=256)] | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(WireModel):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class ConstraintFields(WireModel):
    """Constraints of the answer; at most one of them all."""

    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    lark: Annotated[str, Field(min_length=1)] | None = None
    grammar: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A grammar in llama.cpp's GBNF."
    )
    json_schema: dict[str, Any] | None = Field(
        None, description="A JSON Schema; short for ``response_format``."
    )
    response_format: ResponseFormat | None = None


def constraint(
    body: ConstraintFields, own: tuple[str, Constraint | None] | None = None
) -> Constraint | None:
    """The answer's constraint.

    Args:
        body: The body.
        own: The family's own field for a constraint, and what the body states there.

    Raises InvalidRequest where a body states more than one.
    """
    found = _constraints(body)
    if own is not None and own[1] is not None:
        found[own[0]] = own[1]
    if len(found) > 1:
        places = [body.place((name,)) for name in found]
        names = " and ".join(map(path_text, places))
        raise InvalidRequest(f"{names} exclude each other.", at=places[1])
    return next(iter(found.values()), None)


def constraint_place(body: ConstraintFields) -> Locator:
    """Where ``body`` states its constraint; for a JSON Schema that is not the schema itself."""
    return tuple(_constraints(body))[:1]


def schema_place(body: ConstraintFields) -> Locator:
    """Where ``body`` has the JSON Schema of its constraint."""
    match body.response_format:
        case JsonObjectFormat():
            return ("response_format", "schema")
        case JsonSchemaFormat():
            return ("response_format", "json_schema", "schema")
    return constraint_place(body)


def _constraints(body: ConstraintFields) -> dict[str, Constraint]:
    """The constraints in ``body``, by their fields."""
    found: dict[str, Constraint] = {}
    if body.regex is not None:
        found["regex"] = Constraint(kind="regex", body=body.regex)
    if body.choice is not None:
        found["choice"] = Constraint.of("choice", body.choice)
    if body.lark is not None:
        found["lark"] = Constraint(kind="lark", body=body.lark)
    if body.grammar is not None:
        found["grammar"] = Constraint(kind="gbnf", body=body.grammar)
    if body.json_schema is not None:
        found["json_schema"] = Constraint.of("json_schema", body.json_schema, strict=False)
    match body.response_format:
        case JsonObjectFormat(json_schema=None):
            found["response_format"] = Constraint(kind="json_object")
        case JsonObjectFormat(json_schema=schema):
            found["response_format"] = Constraint.of("json_schema", schema, strict=False)
        case JsonSchemaFormat(json_schema=schema):
            # OpenAI: no schema at all means any JSON object.
            found["response_format"] = Constraint.of(
                "json_schema",
                schema.json_schema or {"type": "object"},
                strict=bool(schema.strict),
            )
    return found

"""What other servers' fields for the answer's form mean here: schemas, grammars, expressions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from server.core.errors import Locator

Meaning = Mapping[Locator, Any]
"""Values by the fields that they belong to.

A path of two steps is a part of an object, by its name there, that means nothing here.
"""


def parsed(value: Any) -> Any:
    """What stands in JSON text, which is as strict as the body; anything else as it is."""
    if isinstance(value, str):
        with suppress(ValueError):  # the schema of the body says what is wrong
            return msgspec.json.decode(value)
    return value


def schema(value: Any) -> Meaning:
    """A JSON Schema, in SGLang's form as text."""
    return {("json_schema",): parsed(value)}


def grammar(value: Any) -> Meaning:
    """A grammar in GBNF or Lark, which ``::=`` tells apart; TGI's form states its kind."""
    match value:
        case {"type": "regex", "value": pattern}:
            return {("regex",): pattern}
        case {"type": "json" | "json_schema", "value": inner}:
            return schema(inner)
        case str() if "::=" not in value:
            return {("lark",): value}
        case _:
            return {("grammar",): value}


def gbnf(value: Any) -> Meaning:
    """llama.cpp's ``grammar``."""
    return grammar(value) if isinstance(value, dict) else {("grammar",): value}


def structured(value: Any) -> Meaning:
    """The ``structured_outputs`` of vLLM."""
    if not isinstance(value, dict):
        return {("structured_outputs",): value}
    meant: dict[Locator, Any] = {}
    for name, part in value.items():
        match name, part:
            case _, None:
                pass
            case "json", _:
                meant.update(schema(part))
            case "grammar", _:
                meant.update(grammar(part))
            case "json_object", True:
                meant["response_format",] = {"type": "json_object"}
            case "regex" | "choice", _:
                meant[name,] = part
            case _:
                meant["structured_outputs", name] = part
    return meant


def form(value: Any) -> Meaning:
    """Ollama's ``format``: the word json, a schema, or nothing, which its clients write as ""."""
    if value == "":
        return {}
    return {("response_format",): {"type": "json_object"}} if value == "json" else schema(value)


_OF_SCHEMAS = ("type", "properties", "items", "enum", "const", "$ref", "anyOf", "allOf", "oneOf")


def _is_schema(value: Mapping[str, Any]) -> bool:
    """Whether ``value`` is a schema where an object with a schema in it belongs."""
    return "schema" not in value and any(keyword in value for keyword in _OF_SCHEMAS)


def response_format(value: Any) -> Meaning:
    """The forms of ``response_format`` that other servers have beside OpenAI's."""
    match value:
        case {"type": "json" | "json_object", "value": inner} | {
            "type": "json_object",
            "response_schema": dict() | str() as inner,
        }:
            return schema(inner)
        case {"type": "json_object", "json_schema": dict()}:
            return response_format({**value, "type": "json_schema"})
        case (
            {"type": "regex", "regex": {"regex": pattern}}
            | {"type": "regex", "regex": pattern}
            | {"type": "regex", "pattern": pattern}
            | {"type": "regex", "value": pattern}
        ):
            return {("regex",): pattern}
        case {"type": "grammar", "grammar": inner}:
            return grammar(inner)
        case _:
            return {("response_format",): _openai_format(value)}


def _openai_format(value: Any) -> Any:
    """A format of OpenAI's, also as a word, or with its schema one level too high or as text."""
    match value:
        case "json" | "json_object" | {"type": "json"}:
            return {"type": "json_object"}
        case "text":
            return {"type": "text"}
        case {"type": "json_schema", "json_schema": dict() as inner} if _is_schema(inner):
            return {**value, "json_schema": {"schema": inner}}
        case {"type": "json_schema", "json_schema": {"schema": str(text)} as inner}:
            return {**value, "json_schema": {**inner, "schema": parsed(text)}}
        case {"type": "json_schema", "schema": inner} | {
            "type": "json_schema",
            "response_schema": inner,
        } if "json_schema" not in value:
            place = "schema" if "schema" in value else "response_schema"
            outer = {name: part for name, part in value.items() if name not in ("type", place)}
            return {"type": "json_schema", "json_schema": {**outer, "schema": parsed(inner)}}
    return value

"""What people send, and what they need: one row for each request.

A row says what the answer must be, what of the request must be named as ignored or loosened (all
of it, and nothing else), and what must come of it, so that serving it dishonestly fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS, TEMPLATE = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    *("/v1/embeddings", "/apply-template"),
)
FAMILIES = (CHAT, RESPONSES, MESSAGES)
GENERATING = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
DIALECTS = ("json", "tagged", "python", "gemma")
"""The models, each called after the notation in which it calls tools."""

USER = {"role": "user", "content": "Hi"}
STRING = {"type": "string", "maxLength": 2}
ANY = object()
"""Stands for arguments of a call that match the schema of its tool."""


@dataclass(frozen=True)
class Input:
    """One request and its answer.

    Attributes:
        kind: What is unusual about it, as a heading.
        path: Where it is sent.
        fields: Of the body, beside those of the smallest one.
        model: The model.
        status: Of the answer.
        param: Of a refusal: the place at fault.
        ignored: All that is named as ignored.
        loosened: All that is named as loosened.
        says: Texts in the answer's body, in this order.
        lacks: Texts that are not in it.
        arguments: Of the one call in an answer that has to call; None: there may be none.
        schema: Of the content, which must match it.
    """

    kind: str
    path: str
    fields: Mapping[str, Any]
    model: str = "json"
    status: int = 200
    param: str = ""
    ignored: Sequence[str] = ()
    loosened: Sequence[str] = ()
    says: Sequence[str] = ()
    lacks: Sequence[str] = ()
    arguments: object = ANY
    schema: Mapping[str, Any] | None = None

    @property
    def answer(self) -> str:
        """In one word what becomes of it."""
        if self.status >= 400:
            return "refused"
        if self.loosened:
            return "loosened"
        return "named" if self.ignored else "served"

    @property
    def body(self) -> dict[str, Any]:
        """The whole body; a field that is an empty text is left out."""
        small = {"model": self.model, **_SMALL[self.path]}
        return {name: value for name, value in {**small, **self.fields}.items() if value != ""}


_SMALL: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [USER], "max_tokens": 4, "temperature": 0},
    COMPLETIONS: {"prompt": "Hi", "max_tokens": 4, "temperature": 0},
    RESPONSES: {"input": "Hi", "max_output_tokens": 4, "temperature": 0, "store": False},
    MESSAGES: {"messages": [USER], "max_tokens": 4, "temperature": 0},
    EMBEDDINGS: {"input": "Hi"},
    TEMPLATE: {"messages": [USER]},
}
_LIMIT = {RESPONSES: "max_output_tokens"}
_REQUIRED = {MESSAGES: {"type": "any"}}
_SCHEMA_FIELD = {MESSAGES: "input_schema"}


def places(path: str, *names: str) -> list[str]:
    """Places in the schema of the first tool, as ``path`` names them."""
    return [f"tools[0].{_SCHEMA_FIELD.get(path, 'parameters')}.{name}" for name in names]


def object_of(**properties: Any) -> dict[str, Any]:
    """A schema of objects that have all ``properties``."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def tools(path: str, *schemas: Any, name: str = "f", **fields: Any) -> list[dict[str, Any]]:
    """Tools with ``schemas`` in the form of ``path``; the first is called ``name``."""
    made = []
    for number, schema in enumerate(schemas):
        called = f"{name}{number or ''}"
        match path:
            case "/v1/responses":
                made.append({"type": "function", "name": called, "parameters": schema, **fields})
            case "/v1/messages":
                made.append({"name": called, "input_schema": schema, **fields})
            case _:
                function = {"name": called, "parameters": schema, **fields}
                made.append({"type": "function", "function": function})
    return made


def calls(kind: str, schema: Any, path: str = CHAT, model: str = "json", **rest: Any) -> Input:
    """A request that must call a tool with ``schema`` once."""
    fields = {
        "tools": tools(path, schema),
        "tool_choice": _REQUIRED.get(path, "required"),
        _LIMIT.get(path, "max_tokens"): 600,
        **rest.pop("fields", {}),
    }
    if path != MESSAGES:
        fields["parallel_tool_calls"] = False
    else:
        fields["tool_choice"] = {"type": "any", "disable_parallel_tool_use": True}
    return Input(kind, path, fields, model, **rest)


def notations(number: int) -> tuple[str, ...]:
    """The models that get a row: the one that writes values raw, and one of the others."""
    return "tagged", ("json", "python", "gemma")[number % 3]


def somewhere(kind: str, number: int, fields: Mapping[str, Any], **rest: Any) -> Iterator[Input]:
    """The same fields in two of the families that generate."""
    paths = (GENERATING[number % 4], GENERATING[(number + 1 + number // 4) % 4])
    return (Input(kind, path, fields, **rest) for path in dict.fromkeys(paths))


def everywhere(kind: str, fields: Mapping[str, Any], **rest: Any) -> Iterator[Input]:
    """The same fields in all families that generate."""
    return (Input(kind, path, fields, **rest) for path in GENERATING)


def in_a_chat(kind: str, number: int, fields: Mapping[str, Any], **rest: Any) -> Input:
    """The same fields in one of the families that chat."""
    return Input(kind, FAMILIES[number % 3], fields, **rest)


def in_chats(kind: str, fields: Mapping[str, Any], **rest: Any) -> Iterator[Input]:
    """The same fields in the families that chat."""
    return (Input(kind, path, fields, **rest) for path in FAMILIES)

"""Parameters under the names that other servers and gateways gave them.

Clients are written for llama.cpp's server, Ollama, vLLM, SGLang, LM Studio, TGI or OpenRouter, and
send their names. `server.api.other_servers` says what each means; a field that a schema lacks stays
an unknown one. Two names of one field with different values contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from server.api.other_formats import Meaning
from server.api.other_servers import NAMES, VALUES
from server.api.validation import Respelled
from server.core.errors import InvalidRequest, Locator, path_text

_SPREAD = ("options", "extra_body")
"""Objects whose fields count as if they stood at top level: Ollama's own, and the SDKs' argument
that people write into the body by hand."""


def respell(
    body: Mapping[str, Any], schema: type[BaseModel], own_names: Mapping[str, str] | None = None
) -> Respelled:
    """``body`` under the names of ``schema``.

    ``own_names`` has the schema's names for fields that it calls otherwise than chat completions.

    Raises InvalidRequest where two names of one field have different values.
    """
    found: dict[str, Any] = {}
    places: dict[str, Locator] = {}
    for place, name, value in _entries(body, schema):
        for (canonical, *rest), meant in _meaning(name, value, schema).items():
            field = (own_names or {}).get(str(canonical), str(canonical))
            if rest or field not in schema.model_fields:
                # Named as the client wrote it.
                unknown = path_text((*place, *rest) if rest else place)
                found[unknown] = meant if rest else value
                continue
            _check_same(found.get(field), meant, places.get(field, (field,)), place)
            if found.get(field) is None:
                found[field] = meant
                places[field] = place
    return Respelled(found, {name: at for name, at in places.items() if at != (name,)})


def respelled_names(body: Mapping[str, Any], names: Mapping[str, str]) -> Respelled:
    """``body`` with our name for each in ``names``, which means the same.

    Raises InvalidRequest where two names of one field have different values.
    """
    found: dict[str, Any] = {}
    places: dict[str, Locator] = {}
    for name, value in body.items():
        ours = names.get(name, name)
        _check_same(found.get(ours), value, places.get(ours, (ours,)), (name,))
        if found.get(ours) is None:
            found[ours] = value
            places[ours] = (name,)
    return Respelled(found, {name: at for name, at in places.items() if at != (name,)})


def _entries(
    body: Mapping[str, Any], schema: type[BaseModel]
) -> Iterator[tuple[Locator, str, Any]]:
    """The parameters in ``body``, those of spread objects behind the others."""
    spread = {
        name
        for name in _SPREAD
        if isinstance(body.get(name), dict) and name not in schema.model_fields
    }
    for name, value in body.items():
        if name not in spread:
            yield (name,), name, value
    for name in sorted(spread):
        for inner, value in body[name].items():
            if value is not None:
                yield (name, inner), inner, value


def _meaning(name: str, value: Any, schema: type[BaseModel]) -> Meaning:
    reader = (VALUES if name in schema.model_fields else NAMES).get(name)
    return {(name,): value} if reader is None or value is None else reader(value)


def _check_same(first: Any, second: Any, at: Locator, other: Locator) -> None:
    if first is not None and second is not None and first != second:
        raise InvalidRequest(f"{path_text(at)} and {path_text(other)} differ.", at=other)

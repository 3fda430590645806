"""Schemas as arguments of a tool: how each dialect takes them, and which values they let pass."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any

import jsonschema_rs

from docs.schema_tables import DIALECTS
from server.core.errors import path_text
from server.grammar.earlier_drafts import in_todays_words
from server.grammar.references import References
from tests.unit.grammar.subjects import matcher
from tests.unit.reply.test_real_schemas import allows, written

_ARGUMENTS = '<tool_call>\n{"name": "f", "arguments": %s}\n</tool_call>'
_PREFIX = "tools[0].parameters."
# Each stands for every member of an instance in turn.
_OTHERS: list[Any] = [None, True, 0, 12, -0.5, "", "some words", [], ["x"], {}, {"a": 1}]


def loosened_everywhere(schema: dict[str, Any]) -> list[str]:
    """What of ``schema`` no dialect enforces; all of them must accept it and agree."""
    found = []
    for dialect in DIALECTS:
        made = written(schema, dialect)
        subject = matcher(made.text)
        assert not subject.is_error(), (dialect, subject.get_error())
        found.append([path_text(place).removeprefix(_PREFIX) for place in made.loosened])
    assert all(each == found[0] for each in found), dict(zip(DIALECTS, found, strict=True))
    return found[0]


def instances_of(schema: dict[str, Any], instances: Iterable[dict[str, Any]]) -> list[Any]:
    """``instances`` in the order of ``schema``, each also without a member or with another value.

    Members that ``schema`` does not list are left out, and with them instances that have no others:
    a tool gets none of those.
    """
    names = list(_listed(schema))
    made = []
    for instance in instances:
        ordered = {name: instance[name] for name in names if name in instance}
        if instance and not ordered:
            continue
        made.append(ordered)
        for name in ordered:
            made.append({key: each for key, each in ordered.items() if key != name})
            made += [{**ordered, name: other} for other in _OTHERS]
    assert made, "no instance is meant for this schema"
    return made


def _listed(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties of ``schema``, or of the definition that it refers to."""
    if "$ref" in schema:
        *_, name = schema["$ref"].split("/")
        return _listed((schema.get("$defs") or schema["definitions"])[name])
    listed: dict[str, Any] = schema.get("properties", {})
    return listed


def misjudged(schema: dict[str, Any], values: Iterable[Any], *, exact: bool) -> list[Any]:
    """Values that match and cannot be written and, if ``exact``, those that must not be."""
    root = copy.deepcopy(schema)
    References(root).write_as_pointers()
    validator = jsonschema_rs.Draft202012Validator(
        in_todays_words(root, lambda _: True),
        validate_formats=True,
        ignore_unknown_formats=True,
        offline=True,
    )
    subject = matcher(written(schema, "JSON").text)
    wrong = []
    for value in values:
        allowed = allows(subject, _ARGUMENTS % json.dumps(value, ensure_ascii=False))
        if validator.is_valid(value) != allowed and (exact or not allowed):
            wrong.append(value)
    return wrong

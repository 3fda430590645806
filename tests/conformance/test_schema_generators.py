"""Schemas as Pydantic, Zod, TypeBox and Valibot write them: accepted in every dialect, and exact.

Those of Pydantic 2 are made here. `generators/record.mjs` refreshes the record of the others, whose
declarations share their instances. Instances are altered in each member; jsonschema-rs says which
of them match.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic.json_schema import JsonSchemaMode

from tests.conformance.generators.models import MODELS, SCHEMAS_OF_1
from tests.conformance.generators.trial import instances_of, loosened_everywhere, misjudged

pytestmark = pytest.mark.process  # for the time that hundreds of grammars take

FOLDER = Path(__file__).parent / "generators"
RECORD = json.loads((FOLDER / "schemas.json").read_text(encoding="utf-8"))
INSTANCES = json.loads((FOLDER / "instances.json").read_text(encoding="utf-8"))
SCHEMAS = [
    pytest.param(each["name"], each["schema"], id=f"{each['generator']}: {each['name']}")
    for each in RECORD
]
# What grammars cannot hold, by what declares it.
LOOSENED = {
    "arrays": {"unique.uniqueItems"},
    "contains": {"a.contains"},
    "closedIntersect": {"o.unevaluatedProperties"},
    "intersection": {"both.unevaluatedProperties"},
    "spans": {"span.pattern"},
    "isoTimes": {"span.pattern"},
    "moreFormats": {"emoji.pattern"},
}
LOOSENED_OF_PYDANTIC = {
    "set": {"uniqueItems"},
    "frozenset": {"uniqueItems"},
    "regex": {"format"},
    "discriminated": {"oneOf"},
}


def schemas_of_pydantic() -> list[Any]:
    found: dict[str, Any] = {}
    for name, (model, values) in MODELS.items():
        modes: tuple[JsonSchemaMode, ...] = ("validation", "serialization")
        for mode in modes:
            schema = model.model_json_schema(mode=mode)
            found.setdefault(
                json.dumps(schema),
                pytest.param(name, schema, values, id=f"pydantic 2, {mode}: {name}"),
            )
    of_1 = [
        pytest.param(name, schema, values, id=f"pydantic 1: {name}")
        for name, (schema, values) in SCHEMAS_OF_1.items()
    ]
    return [*found.values(), *of_1]


def check(schema: dict[str, Any], instances: list[dict[str, Any]], may_loosen: set[str]) -> None:
    loosened = loosened_everywhere(schema)
    assert {*loosened} <= may_loosen
    assert misjudged(schema, instances_of(schema, instances), exact=not loosened) == []


@pytest.mark.parametrize("generator", ["zod 3", "zod 4", "typebox", "valibot"])
def test_the_record_has_schemas_of_every_generator(generator: str) -> None:
    names = {each["name"] for each in RECORD if each["generator"].startswith(generator)}
    assert len(names) >= 12


@pytest.mark.parametrize(("name", "schema"), SCHEMAS)
def test_a_schema_is_accepted_in_every_dialect_and_holds_what_it_says(
    name: str, schema: dict[str, Any]
) -> None:
    may_loosen = {f"properties.{place}" for place in LOOSENED.get(name, ())}
    check(schema, INSTANCES[name], may_loosen)


@pytest.mark.parametrize(("name", "schema", "values"), schemas_of_pydantic())
def test_a_schema_of_pydantic_is_accepted_in_every_dialect_and_holds_what_it_says(
    name: str, schema: dict[str, Any], values: list[Any]
) -> None:
    loosened = LOOSENED_OF_PYDANTIC.get(name, ())
    check(schema, values, {f"properties.value.{keyword}" for keyword in loosened})

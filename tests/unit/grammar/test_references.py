"""References inside a schema: JSON Pointers as RFC 6901 has them, and parts that stand alone."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.errors import InvalidConstraint
from server.grammar.conversion import enforced_grammar
from server.grammar.json_schema import enforceable
from server.grammar.references import References, definitions_of, resolve
from tests.unit.grammar.subjects import matches

# The names of the example in RFC 6901, section 5, and a few more.
NAMES = {name: {"const": name} for name in ("foo", "", "a/b", "c%d", "e^f", "m~n", " ", "ä", "%20")}
ROOT: dict[str, Any] = {
    "$defs": NAMES,
    "prefixItems": [{"const": 0}, {"const": 1}],
    "items": False,
    "title": "T",
}


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("#/$defs/foo", "foo"),
        ("#/%24defs/foo", "foo"),
        ("#/$defs/", ""),
        ("#/$defs/a~1b", "a/b"),
        ("#/$defs/c%25d", "c%d"),
        ("#/$defs/e%5Ef", "e^f"),
        ("#/$defs/e^f", "e^f"),
        ("#/$defs/m~0n", "m~n"),
        ("#/$defs/m%7E0n", "m~n"),
        ("#/$defs/%20", " "),
        ("#/$defs/ ", " "),
        ("#/$defs/%C3%A4", "ä"),
        ("#/$defs/ä", "ä"),
        ("#/$defs/%2520", "%20"),
    ],
)
def test_a_name_is_found_however_it_is_escaped(reference: str, name: str) -> None:
    assert resolve(reference, ROOT) is NAMES[name]


def test_the_whole_schema_items_of_lists_and_booleans_can_be_referred_to() -> None:
    assert resolve("#", ROOT) is ROOT
    assert resolve("#/prefixItems/1", ROOT) == {"const": 1}
    assert resolve("#/items", ROOT) is False


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("#/$defs/missing", "points nowhere"),
        ("#/$defs/foo/const/x", "points nowhere"),
        ("#/", "points nowhere"),
        ("#/prefixItems/2", "points nowhere"),
        ("#/prefixItems/-1", "points nowhere"),
        ("#/prefixItems/01", "points nowhere"),
        ("#/prefixItems/²", "points nowhere"),
        ("#/prefixItems/-", "points nowhere"),
        ("#/title", "points to no schema"),
        ("#/$defs/foo/const", "points to no schema"),
        ("#/prefixItems", "points to no schema"),
        ("#foo", "must point into the schema itself"),
        ("other.json#/a", "must point into the schema itself"),
        ("http://127.0.0.1:9/schema.json", "must point into the schema itself"),
    ],
)
def test_a_reference_that_cannot_be_followed_is_named_with_its_place(
    reference: str, problem: str
) -> None:
    with pytest.raises(InvalidConstraint) as caught:
        References(ROOT).resolve(reference, None, "#/properties/a")
    assert problem in caught.value.message
    assert repr(reference) in caught.value.message
    assert caught.value.message.endswith("(at #/properties/a).")


@given(st.text(), st.booleans())
def test_every_name_can_be_referred_to(name: str, encoded: bool) -> None:
    step = name.replace("~", "~0").replace("/", "~1").replace("%", "%25")
    if encoded:
        step = "".join(f"%{byte:02X}" for byte in step.replace("%25", "%").encode())
    target = {"const": name}
    assert resolve(f"#/$defs/{step}", {"$defs": {name: target}}) is target


TREE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "same": {"$ref": "#/properties/value"},
        "left": {"$ref": "#"},
        "pair": {
            "type": "array",
            "prefixItems": [{"type": "object", "properties": {"x": {"type": "boolean"}}}],
            "items": {"$ref": "#/properties/pair/prefixItems/0"},
        },
        "deep": {"$ref": "#/properties/pair/prefixItems/0/properties/x"},
        "again": {"$ref": "#/properties/pair"},
        "none": {"$ref": "#/$defs/no"},
        "name": {"$ref": "#/$defs/ref0"},
        "old": {"$ref": "#/definitions/old"},
    },
    "$defs": {"ref0": {"type": "string"}, "no": False},
    "definitions": {
        "old": {"type": "array", "items": {"$ref": "#/definitions/name"}},
        "name": {"type": "string"},
    },
    "additionalProperties": False,
}

VALUES: list[Any] = [
    {},
    {"value": 1, "same": 2},
    {"same": "x"},
    {"left": {"left": {"value": 3}}},
    {"left": {"left": {"value": "x"}}},
    {"left": {"other": 1}},
    {"pair": [{"x": True}, {"x": False}]},
    {"pair": [{}, {"x": 1}]},
    {"deep": True},
    {"deep": 1},
    {"again": [{}, {"x": True}]},
    {"again": [{}, {"x": "no"}]},
    {"none": 1},
    {"name": "x"},
    {"name": 1},
    {"old": ["x"]},
    {"old": [1]},
]


def references(schema: object) -> list[str]:
    match schema:
        case dict():
            here = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
            return [*here, *(each for part in schema.values() for each in references(part))]
        case list():
            return [each for part in schema for each in references(part)]
    return []


def test_every_reference_points_at_a_definition_afterwards_and_means_the_same() -> None:
    made = enforceable(TREE)
    assert all(each.startswith("#/$defs/") for each in references(made))
    before, after = (jsonschema.Draft202012Validator(each) for each in (TREE, made))
    assert [before.is_valid(each) for each in VALUES] == [after.is_valid(each) for each in VALUES]
    assert len({before.is_valid(each) for each in VALUES}) == 2


def test_parts_of_a_schema_need_some_definitions_only() -> None:
    made = enforceable(TREE)
    whole = jsonschema.Draft202012Validator(TREE)
    candidates = [*VALUES, *(inner for value in VALUES for inner in value.values())]
    assert made["properties"].pop("none") is False
    for name, part in made["properties"].items():
        definitions = definitions_of(part, made)
        assert set(references({**part, "$defs": definitions})) == {
            f"#/$defs/{n}" for n in definitions
        }
        alone = jsonschema.Draft202012Validator({**part, "$defs": definitions})
        for value in candidates:
            assert alone.is_valid(value) == whole.is_valid({name: value}), (name, value)


def test_definitions_keep_their_names() -> None:
    schema = {"items": {"$ref": "#/$defs/a%20b"}, "$defs": {"a b": {"items": {"type": "null"}}}}
    assert enforceable(schema)["$defs"] == schema["$defs"]


NAMED: dict[str, Any] = {
    "$id": "https://example.org/root",
    "$defs": {
        "here": {"$anchor": "there", "type": "integer"},
        "old": {"$id": "#older", "type": "null"},
        "apart": {
            "$id": "apart",
            "items": {"$ref": "#/$defs/own"},
            "$defs": {"own": {"type": "boolean"}},
        },
    },
}


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("#there", 1),
        ("#older", None),
        ("https://example.org/root#/$defs/here", 1),
        ("https://example.org/root#there", 1),
        ("apart", [True]),
        ("https://example.org/apart", [True]),
        ("apart#/$defs/own", True),
        ("#/$defs/apart", [True]),
    ],
)
def test_anchors_and_ids_are_followed(reference: str, value: Any) -> None:
    made = enforceable({**NAMED, "properties": {"k": {"$ref": reference}}, "required": ["k"]})
    validator = jsonschema.Draft202012Validator(made)
    assert validator.is_valid({"k": value})
    assert not validator.is_valid({"k": [1.5]})


def test_a_recursive_reference_is_one_to_the_whole_schema() -> None:
    made = enforceable({"properties": {"k": {"$recursiveRef": "#"}}, "additionalProperties": False})
    validator = jsonschema.Draft202012Validator(made)
    assert validator.is_valid({"k": {"k": {}}})
    assert not validator.is_valid({"k": {"x": {}}})


def test_nested_targets_do_not_multiply() -> None:
    schema: dict[str, Any] = {"type": "string"}
    pointers = []
    for depth in range(40):
        schema = {"type": "object", "properties": {"p": schema}}
        pointers.append("#" + "/properties/p" * depth)
    schema["properties"] |= {f"r{n}": {"$ref": each} for n, each in enumerate(pointers)}
    before = len(json.dumps(schema))
    assert len(json.dumps(enforceable(schema))) < 3 * before


def test_an_id_beside_a_reference_counts_where_the_draft_says_so() -> None:
    root = {
        "$id": "http://example.com/root",
        "properties": {"a": {"$id": "http://other.com/", "$ref": "b.json"}},
        "$defs": {"b": {"$id": "http://example.com/b.json", "type": "string"}},
    }
    referring = root["properties"]["a"]  # type: ignore[index]
    assert References(root, alone=True).resolve("b.json", referring).path == ("$defs", "b")
    with pytest.raises(InvalidConstraint):
        References(root).resolve("b.json", referring)


LEFT_OUT: dict[str, Any] = {
    "$defs": {
        "none": {"const": "a", "enum": ["b"]},
        "needs it": {
            "type": "object",
            "properties": {"k": {"$ref": "#/$defs/none"}},
            "required": ["k"],
        },
        "is it": {"$ref": "#/$defs/needs it"},
    },
}


@pytest.mark.parametrize("name", ["none", "is it"])
def test_a_reference_to_what_no_value_matches_is_left_out(name: str) -> None:
    refer = {"$ref": f"#/$defs/{name}"}
    branches = {"anyOf": [refer, {"type": "null"}]}
    properties = {"a": refer, "b": branches, "c": {"items": refer, "type": "array"}}
    made = enforceable({**LEFT_OUT, "type": "object", "properties": properties})
    assert matches(enforced_grammar(made), '{"b": null, "c": []}')
    assert not matches(enforced_grammar(made), '{"a": "a"}')
    for required in (refer, {"properties": properties, "required": ["a"]}):
        with pytest.raises(InvalidConstraint, match=r"'enum' has no value .* \(at #/\$defs/none\)"):
            enforceable({**LEFT_OUT, "type": "object", **required})

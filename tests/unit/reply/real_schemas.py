"""Schemas of arguments as people, generators and servers of tools write them, by kind.

Each is the schema of one argument ``k``, or of all arguments where the kind says so. With it stands
what the grammar cannot hold, as paths from that schema; none for those that are enforced as they
stand.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Real(NamedTuple):
    """A schema, what is loosened of it, and values that match and that the grammar refuses."""

    schema: dict[str, Any]
    loosened: tuple[str, ...] = ()
    good: tuple[Any, ...] = ()
    bad: tuple[Any, ...] = ()


def string(**keywords: Any) -> dict[str, Any]:
    return {"type": "string", **keywords}


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def pattern(text: str) -> Real:
    return Real(string(pattern=text), ("pattern",), ("abc",))


INTEGER = {"type": "integer"}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}

ARGUMENTS: dict[str, list[Real]] = {
    "patterns that no grammar holds": [
        pattern("(?!x)abc"),
        pattern("^(?=.*b).+$"),
        pattern(r"\babc\b"),
        pattern("(?<!x)abc"),
        pattern("(?<=^)abc"),
        pattern(r"(a)bc|\1"),
        pattern(r"(?<n>a)bc|\k<n>"),
    ],
    "patterns that a grammar holds": [
        Real(string(pattern="^[a-z]+$"), (), ("abc",), ("ABC",)),
        Real(string(pattern=r"^\d{4}-\d{2}$"), (), ("2024-05",), ("2024",)),
        Real(string(pattern="^(?:a|b)+$"), (), ("ab",), ("c",)),
        Real(string(pattern="^[^/]+$"), (), ("ab",), ("a/b",)),
        Real(string(pattern="x"), (), ("axb",), ("ab",)),
    ],
    "formats of the standard that no grammar holds": [
        Real(string(format=name), ("format",), ("a",))
        for name in ("regex", "idn-email", "idn-hostname")
    ],
    "formats of the standard that a grammar holds": [
        Real(string(format="ipv4"), (), ("127.0.0.1",), ("a",)),
        Real(string(format="uuid"), (), ("123e4567-e89b-12d3-a456-426614174000",), ("a",)),
        Real(string(format="json-pointer"), (), ("/a",), ("a",)),
    ],
    "formats that the standard does not know": [
        Real(string(format=name), (), ("a",)) for name in ("int32", "binary", "password", "cuid")
    ]
    + [Real({"type": "integer", "format": "int64"}, (), (1,), ("x",))],
    "records": [
        Real({**STRINGS, "propertyNames": {"type": "string"}}, (), ({"a": "x"},), ({"a": 1},)),
        Real({**STRINGS, "propertyNames": {}}, (), ({"a": "x"},), ({"a": 1},)),
        Real({**STRINGS, "propertyNames": {"enum": ["a"]}}, (), ({"a": "x"},), ({"b": "x"},)),
        Real({**STRINGS, "propertyNames": {"const": "a"}}, (), ({"a": "x"},), ({"b": "x"},)),
        Real({**STRINGS, "propertyNames": {"pattern": "^a"}}, (), ({"a": "x"},), ({"b": "x"},)),
        Real(
            {**STRINGS, "propertyNames": {"format": "date"}},
            (),
            ({"2024-05-06": "x"},),
            ({"2024-13-06": "x"},),
        ),
        Real(
            {**STRINGS, "propertyNames": {"format": "uuid"}},
            (),
            ({"123e4567-e89b-12d3-a456-426614174000": "x"},),
            ({"b": "x"},),
        ),
        Real({**STRINGS, "propertyNames": {"minLength": 2}}, (), ({"ab": "x"},), ({"b": "x"},)),
        Real(
            {**STRINGS, "propertyNames": {"anyOf": [{"const": "a"}, {"const": "b"}]}},
            (),
            ({"b": "x"},),
            ({"c": "x"},),
        ),
        Real(
            {**STRINGS, "propertyNames": {"pattern": "^a", "maxLength": 3}},
            ("propertyNames",),
            ({"a": "x"},),
            ({"a": 1},),
        ),
        Real(
            {**STRINGS, "propertyNames": {"not": {"const": "x"}}}, ("propertyNames",), ({"a": "b"},)
        ),
    ],
    "sets": [
        Real({"type": "array", "uniqueItems": True}, ("uniqueItems",), ([1, 2],), ("x",)),
        Real(
            {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True},
            ("uniqueItems",),
            ([1, 2],),
            ([1, 2, 1],),
        ),
        Real({"type": "array", "uniqueItems": False, "items": INTEGER}, (), ([1, 1],), (["x"],)),
        Real({"type": "array", "uniqueItems": True, "maxItems": 1}, (), ([1],), ([1, 2],)),
    ],
    "negations": [
        Real({"not": {"type": "null"}}, (), (1,), (None,)),
        Real({"type": ["integer", "null"], "not": {"type": "null"}}, (), (1,), (None,)),
        Real({"enum": [1, 2, 3], "not": {"enum": [2]}}, (), (1, 3), (2,)),
        Real({"enum": [1, 2, 3], "not": {"const": 2}}, (), (1, 3), (2,)),
        Real({"anyOf": [{"not": {}}, INTEGER]}, (), (1,), ("x",)),
        Real({**INTEGER, "not": False}, (), (1,), ("x",)),
        Real({**INTEGER, "not": {"const": 3}}, ("not",), (1,), ("x",)),
        Real({"type": "object", "not": {"required": ["a"]}}, ("not",), ({"b": 1},), (1,)),
    ],
    "never": [
        Real(
            {**record(a=INTEGER), "properties": {"a": INTEGER, "b": {"not": {}}}}, (), ({"a": 1},)
        ),
        Real({"type": "array", "items": {"not": {}}}, (), ([],), ([1],)),
    ],
    "conditions": [
        Real({**INTEGER, "if": {"minimum": 3}, "then": {"maximum": 5}}, ("if",), (1,), ("x",)),
        Real({**INTEGER, "if": {"minimum": 3}}, (), (1,), ("x",)),
        Real({**INTEGER, "then": False}, (), (1,), ("x",)),
        Real(
            {**record(a=INTEGER), "dependentRequired": {"a": ["b"]}},
            ("dependentRequired",),
            ({"a": 1},),
            ({},),
        ),
        Real(
            {**record(a=INTEGER), "dependencies": {"a": ["b"]}},
            ("dependencies",),
            ({"a": 1},),
            ({},),
        ),
        Real(
            {**record(a=INTEGER), "dependentSchemas": {"a": {"required": ["b"]}}},
            ("dependentSchemas",),
            ({"a": 1},),
            ({},),
        ),
        Real({**record(a=INTEGER), "dependentRequired": {}}, (), ({"a": 1},), ({},)),
    ],
    "contents of lists": [
        Real({"type": "array", "contains": INTEGER}, ("contains",), ([1],), ([],)),
        Real(
            {"type": "array", "contains": INTEGER, "minContains": 2},
            ("contains",),
            ([1, 2],),
            ([1],),
        ),
        Real({"type": "array", "contains": INTEGER, "minContains": 0}, (), ([],), (1,)),
        Real({"type": "array", "contains": {}}, (), ([1],), ([],)),
    ],
    "exclusive unions": [
        Real({"oneOf": [INTEGER, {"type": "null"}]}, (), (1, None), ("x",)),
        Real({"oneOf": [{"const": "a", "title": "A"}, {"const": "b"}]}, (), ("a",), ("c",)),
        Real({"oneOf": [INTEGER, {"type": "number"}]}, ("oneOf",), (1, 1.5), ("x",)),
        Real({"oneOf": [{"type": "array", "items": INTEGER}, INTEGER]}, (), (1, [1]), ("x",)),
        Real(
            {"oneOf": [record(kind={"const": "a"}), record(kind={"const": "b"})]},
            (),
            ({"kind": "a"},),
            ({"kind": "c"},),
        ),
        Real(
            {"oneOf": [record(a=INTEGER), record(b=INTEGER)]},
            ("oneOf",),
            ({"a": 1},),
            ({"a": "x"},),
        ),
        Real({"oneOf": [INTEGER]}, (), (1,), ("x",)),
    ],
    "bounds beyond 64 bits": [
        Real({**INTEGER, "maximum": 9223372036854775807}, (), (5,), ("x",)),
        Real({**INTEGER, "minimum": -9223372036854775808}, (), (5,), ("x",)),
        Real({"type": "number", "maximum": 1.79e308}, (), (5.5,), ("x",)),
        Real({"type": "number", "minimum": -1.7976931348623157e308}, (), (5.5,), ("x",)),
        Real({**INTEGER, "exclusiveMaximum": 18446744073709551616}, (), (5,), ("x",)),
        Real({**INTEGER, "maximum": 2**53 - 1, "minimum": 1 - 2**53}, (), (5,), ("x",)),
    ],
    "values that cannot be written exactly": [
        Real({"enum": [2**60, 1]}, ("enum",), (1,)),
        Real({**INTEGER, "maximum": 2**60}, ("maximum",), (1,), ("x",)),
    ],
    "draft 4": [
        Real({**INTEGER, "minimum": 0, "exclusiveMinimum": True}, (), (1,), (0,)),
        Real({**INTEGER, "maximum": 9, "exclusiveMaximum": False}, (), (9,), (10,)),
        Real(
            {"type": "array", "items": [INTEGER], "additionalItems": False}, (), ([1],), ([1, 2],)
        ),
        Real({"type": "array", "items": [INTEGER]}, (), ([1, "x"],), (["x"],)),
        Real({**record(a=INTEGER), "id": "#thing"}, (), ({"a": 1},), ({},)),
    ],
    "draft 3": [
        Real(
            {"type": "object", "properties": {"a": {**INTEGER, "required": True}}},
            (),
            ({"a": 1},),
            ({},),
        ),
        Real({**INTEGER, "divisibleBy": 5}, (), (10,), (11,)),
        Real({"type": "any"}, (), (1, None)),
        Real({**INTEGER, "required": False}, (), (1,), ("x",)),
    ],
    "OpenAPI": [
        Real({**INTEGER, "nullable": True}, (), (1, None), ("x",)),
        Real({"enum": [1, 2], "nullable": True}, (), (1, None), (3,)),
        Real({**INTEGER, "nullable": False}, (), (1,), (None,)),
        Real(string(nullable=True, enum=[None]), (), (None,), ("x",)),
        Real(string(nullable=True, enum=["a", None]), (), ("a", None), ("x",)),
        Real(string(nullable=True, const="a"), (), ("a", None), ("x",)),
        Real({"anyOf": [INTEGER], "nullable": True}, (), (1, None), ("x",)),
        Real({**record(a=INTEGER), "discriminator": {"propertyName": "a"}}, (), ({"a": 1},), ({},)),
        Real({**INTEGER, "example": 5, "xml": {"name": "k"}}, (), (1,), ("x",)),
    ],
    "nulls where a keyword is not there": [
        Real({**INTEGER, "enum": None, "description": None}, (), (1,), ("x",)),
        Real({"type": "array", "items": None, "minItems": 1}, (), ([1],), ([],)),
        Real({**record(a=INTEGER), "additionalProperties": None}, (), ({"a": 1},), ({},)),
    ],
    "types in capitals": [
        Real({"type": "INTEGER"}, (), (1,), ("x",)),
        Real({"type": "OBJECT", "properties": {"a": {"type": "NUMBER"}}}, (), ({"a": 1},), (1,)),
    ],
    "counts as floats": [
        Real({"type": "array", "maxItems": 1.0}, (), ([1],), ([1, 2],)),
        Real(string(maxLength=2.0), (), ("ab",), ("abc",)),
        Real({"type": "object", "maxProperties": 1.0}, (), ({"a": 1},), ({"a": 1, "b": 2},)),
    ],
    "values beside types and limits": [
        Real({"const": "a", "enum": ["a", "b"]}, (), ("a",), ("b",)),
        Real(string(enum=["a", "b", 1]), (), ("a",), ("c",)),
        Real(string(enum=["a", "bb"], pattern="^b+$"), (), ("bb",), ("a",)),
        Real(string(enum=["a", "bb"], maxLength=1), (), ("a",), ("bb",)),
        Real({"enum": [1, 5], "maximum": 3}, (), (1,), (5,)),
        Real(string(enum=[]), ("enum",), ("a",)),
        Real({"type": ["string", "null"], "enum": ["a", None]}, (), ("a", None), ("b",)),
    ],
    "keywords beside references and combinations": [
        Real({"$ref": "#/$defs/text", "maxLength": 2}, (), ("ab",), ("abc",)),
        Real({"allOf": [{"$ref": "#/$defs/text"}], "maxLength": 2}, (), ("ab",), ("abc",)),
        Real({"allOf": [string(minLength=1), {"maxLength": 2}]}, (), ("ab",), ("abc",)),
        Real({"allOf": [string(pattern="^a"), {"pattern": "b$"}]}, (), ("ab",), ("a",)),
        Real({"anyOf": [string(), {"type": "null"}], "maxLength": 2}, (), ("ab", None), ("abc",)),
        Real(
            {"anyOf": [{"minLength": 3}, {"maxLength": 1}], **string()}, (), ("abc", "a"), ("ab",)
        ),
        Real(
            {"allOf": [record(a=INTEGER), record(b=INTEGER)]}, (), ({"a": 1, "b": 2},), ({"a": 1},)
        ),
    ],
    "references": [
        Real({"$ref": "#/$defs/count"}, (), (1,), ("x",)),
        Real({"$ref": "#/definitions/count"}, (), (1,), ("x",)),
        Real({"$ref": "#/components/schemas/Count"}, (), (1,), ("x",)),
        Real({"$ref": "#/properties/other"}, (), (True,), ("x",)),
        Real({"$ref": "#counted"}, (), (1,), ("x",)),
        Real({"type": "array", "items": {"$ref": "#/$defs/count"}}, (), ([1],), (["x"],)),
        Real({"$ref": "#/$defs/tree"}, (), ({"next": [{"next": []}]},), ({"next": [1]},)),
    ],
    "numbers of properties": [
        Real({"type": "object", "minProperties": 1}, (), ({"a": 1},), ({},)),
        Real(
            {"type": "object", "properties": {"a": INTEGER}, "maxProperties": 3}, ("maxProperties",)
        ),
        Real(
            {
                "type": "object",
                "properties": {"a": INTEGER, "b": INTEGER},
                "additionalProperties": False,
                "minProperties": 1,
            },
            (),
            ({"a": 1}, {"b": 1}),
            ({},),
        ),
        Real({**record(a=INTEGER), "minProperties": 1}, (), ({"a": 1},), ({},)),
        Real({"type": "object", "minProperties": 3}, ("minProperties",), ({"a": 1},)),
    ],
    "properties by pattern": [
        Real(
            {"type": "object", "patternProperties": {"^a": INTEGER}},
            (),
            ({"ab": 1},),
            ({"ab": "x"},),
        ),
        Real(
            {
                "type": "object",
                "patternProperties": {"(?!b)^a": INTEGER},
                "additionalProperties": False,
            },
            ("patternProperties.(?!b)^a",),
            ({"ab": 1},),
            (1,),
        ),
    ],
    "properties that are left over": [
        Real(
            {**record(a=INTEGER), "unevaluatedProperties": False},
            (),
            ({"a": 1},),
            ({"a": 1, "b": 2},),
        ),
        Real({**record(a=INTEGER), "unevaluatedProperties": True}, (), ({"a": 1},), ({},)),
        Real(
            {"allOf": [record(a=INTEGER)], "unevaluatedProperties": False},
            ("unevaluatedProperties",),
            ({"a": 1},),
            ({},),
        ),
        Real(
            {"type": "array", "prefixItems": [INTEGER], "unevaluatedItems": False},
            (),
            ([1],),
            ([1, 2],),
        ),
    ],
    "requirements that are forbidden": [
        Real(
            {"type": "object", "properties": {}, "required": ["a"], "additionalProperties": False},
            ("required",),
            ({},),
            (1,),
        )
    ],
    "annotations and unknown keywords": [
        Real({**INTEGER, name: "x"}, (), (1,), ("x",))
        for name in (
            "$comment",
            "title",
            "x-order",
            "markdownDescription",
            "errorMessage",
            "$anchor",
        )
    ],
    "names of properties": [
        Real(record(**{name: INTEGER}), (), ({name: 1},), ({name: "x"},))
        for name in ("a-b", "a.b", "$top", "a b", "a[0]", 'a"b', "ä", "class")
    ],
    "schemas that say nothing": [
        Real({}, (), (1, None, [1], {"a": 1})),
        Real({"description": "Anything."}, (), (1, {"a": 1})),
        Real({"type": "object"}, (), ({"a": 1},), (1,)),
        Real({"type": "array"}, (), ([1, "x"],), (1,)),
    ],
}

DEFINITIONS: dict[str, Any] = {
    "$defs": {
        "text": string(),
        "count": {**INTEGER, "$anchor": "counted"},
        "tree": record(next={"type": "array", "items": {"$ref": "#/$defs/tree"}}),
    },
    "definitions": {"count": INTEGER},
    "components": {"schemas": {"Count": INTEGER}},
}
"""What the references of `ARGUMENTS` point at, beside a property ``other``, a boolean."""

WHOLE: dict[str, list[Real]] = {
    "the root is a reference": [
        Real({"$ref": "#/$defs/a", "$defs": {"a": record(k=INTEGER)}}, (), ({"k": 1},), ({},)),
    ],
    "the root combines others": [
        Real(
            {
                "type": "object",
                "properties": {"a": INTEGER, "b": INTEGER},
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            (),
            ({"a": 1}, {"b": 1}),
            ({},),
        ),
        Real(
            {
                "type": "object",
                "properties": {"a": INTEGER, "b": INTEGER},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            ("oneOf",),
            ({"a": 1}, {"b": 1}),
            ({},),
        ),
        Real(
            {"allOf": [record(a=INTEGER), record(b=INTEGER)]}, (), ({"a": 1, "b": 2},), ({"a": 1},)
        ),
        Real({"anyOf": [record(a=INTEGER), record(b=INTEGER)]}, (), ({"a": 1}, {"b": 1}), ({},)),
        Real(
            {**record(a=INTEGER), "if": {"required": ["b"]}, "then": {"required": ["c"]}}, ("if",)
        ),
    ],
    "the root is open": [
        Real({"type": "object"}, (), ({"a": 1}, {})),
        Real({"type": "object", "additionalProperties": INTEGER}, (), ({"a": 1},), ({"a": None},)),
        Real({**record(a=INTEGER), "additionalProperties": True}, (), ({"a": 1, "b": 2},), ({},)),
        Real({}, (), ({},), ({"a": 1},)),
        Real({"type": ["object", "null"], "properties": {"a": INTEGER}}, (), ({"a": 1},)),
        Real(
            {"properties": {"a": INTEGER}, "required": ["a", "b"]}, (), ({"a": 1, "b": 2},), ({},)
        ),
    ],
    "$schema of any draft": [
        Real(
            {"$schema": f"http://json-schema.org/{draft}/schema#", **record(a=INTEGER)},
            (),
            ({"a": 1},),
            ({},),
        )
        for draft in ("draft-03", "draft-04", "draft-07", "draft/2019-09", "draft/2020-12")
    ],
}
"""Schemas of all arguments of a tool."""

"""JSON Schemas drawn at random from everything that structured output enforces."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

_NAMES = [
    "name",
    "id",
    "größe",
    "名前",
    "two words",
    'with "quotes"',
    "back\\slash",
    "🎉",
    "a/b",
    "",
]
_WORDS = ["red", "grün", "голубой", "黄色", "🟣", 'say "hi"', "C:\\temp", "tab\there", "a, b", "{}"]
_PATTERNS = [
    "^[A-Z]{2}-[0-9]{4}$",
    "^(yes|no|maybe)$",
    "[0-9]",
    "^[äöü]{1,6}$",
    '^"[a-z]+"$',
    r"^\\[a-z]{1,5}$",
    "^[^a-z]{3,12}$",
]
_FORMATS = ["date-time", "date", "time", "email", "ipv4", "ipv6", "uuid"]
_DEEPEST = 2


def random_schema(seed: int) -> Schema:
    """The schema for ``seed``; at least one value matches it."""
    return _Generator(random.Random(seed)).schema()


class _Generator:
    def __init__(self, choose: random.Random) -> None:
        self._choose = choose
        self._definitions: dict[str, Schema] = {}

    def schema(self) -> Schema:
        root = self._composite(0)
        if self._definitions:
            root["$defs"] = self._definitions
        return root

    def _any(self, depth: int) -> Schema:
        composite = depth < _DEEPEST and self._choose.random() < 0.5
        return self._composite(depth) if composite else self._scalar()

    def _composite(self, depth: int) -> Schema:
        kinds: list[Callable[[int], Schema]] = [
            *(self._object, self._object, self._array, self._tuple, self._map, self._patterned),
            *(self._any_of, self._one_of, self._all_of, self._shared, self._tree),
        ]
        return self._choose.choice(kinds)(depth)

    def _scalar(self) -> Schema:
        kinds: list[Callable[[], Schema]] = [
            *(self._integer, self._number, self._string, self._pattern, self._format),
            *(self._enum, self._const, self._union, lambda: {"type": "boolean"}),
        ]
        return self._choose.choice(kinds)()

    # --- values of one piece ---

    def _integer(self) -> Schema:
        if self._choose.random() < 0.3:
            return {
                "type": "integer",
                "multipleOf": self._choose.choice([3, 7, 25]),
                "minimum": 0,
                "maximum": 999,
            }
        return {"type": "integer", **self._bounds(self._choose.randint(-2000, 2000))}

    def _number(self) -> Schema:
        made = {"type": "number", **self._bounds(self._choose.randint(-5000, 5000) / 100)}
        return {**made, "multipleOf": 0.01} if self._choose.random() < 0.8 else made

    def _bounds(self, low: float) -> Schema:
        high = low + self._choose.choice([3, 9, 250])
        lower, upper = (
            self._choose.choice(["minimum", "exclusiveMinimum"]),
            self._choose.choice(["maximum", "exclusiveMaximum"]),
        )
        bounds = {lower: low, upper: round(high, 2)}
        return bounds if self._choose.random() < 0.95 else {lower: low}

    def _string(self) -> Schema:
        least = self._choose.randint(0, 8)
        return {
            "type": "string",
            "minLength": least,
            "maxLength": least + self._choose.randint(0, 20),
        }

    def _pattern(self) -> Schema:
        return {"type": "string", "pattern": self._choose.choice(_PATTERNS), "maxLength": 24}

    def _format(self) -> Schema:
        made = {"type": "string", "format": self._choose.choice(_FORMATS)}
        return {**made, "maxLength": 30} if made["format"] == "email" else made

    def _enum(self) -> Schema:
        return {"enum": [*self._choose.sample(_WORDS, 3), self._choose.randint(-9, 9), None, 2.5]}

    def _const(self) -> Schema:
        return {"const": {self._choose.choice(_NAMES): [1, None, self._choose.choice(_WORDS)]}}

    def _union(self) -> Schema:
        types = self._choose.sample(["null", "boolean", "integer", "string"], 2)
        return {"type": types, "minimum": 10, "maxLength": 15}

    # --- values made of others ---

    def _object(self, depth: int) -> Schema:
        names = self._choose.sample(_NAMES, self._choose.randint(1, 4))
        made: Schema = {
            "type": "object",
            "properties": {name: self._any(depth + 1) for name in names},
            "required": self._choose.sample(names, self._choose.randint(0, len(names))),
        }
        others = self._choose.choice([None, False, False, {"type": "integer", "maximum": 99}])
        return made if others is None else {**made, "additionalProperties": others}

    def _array(self, depth: int) -> Schema:
        least = self._choose.randint(0, 2)
        most = least + self._choose.randint(0, 3)
        return {
            "type": "array",
            "items": self._any(depth + 1),
            "minItems": least,
            "maxItems": most,
        }

    def _tuple(self, depth: int) -> Schema:
        first = [self._any(depth + 1) for _ in range(self._choose.randint(1, 3))]
        least = self._choose.randint(0, len(first))
        return {"type": "array", "prefixItems": first, "items": False, "minItems": least}

    def _map(self, depth: int) -> Schema:
        return {
            "type": "object",
            "additionalProperties": self._any(depth + 1),
            "maxProperties": self._choose.randint(1, 3),
        }

    def _patterned(self, depth: int) -> Schema:
        return {
            "type": "object",
            "patternProperties": {"^x_": self._scalar(), "^[0-9]{1,3}$": self._scalar()},
            "properties": {"kind": self._scalar()},
            "required": ["kind"],
            "additionalProperties": False,
        }

    def _any_of(self, depth: int) -> Schema:
        return {"anyOf": [self._any(depth + 1) for _ in range(self._choose.randint(2, 3))]}

    def _one_of(self, depth: int) -> Schema:
        return {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"const": word}, "value": self._any(depth + 1)},
                    "required": ["kind", "value"],
                    "additionalProperties": False,
                }
                for word in self._choose.sample(_WORDS, 2)
            ]
        }

    def _all_of(self, depth: int) -> Schema:
        name = self._choose.choice(_NAMES)
        return {
            "allOf": [
                {"type": "object", "properties": {name: {"type": "integer", "minimum": 5}}},
                {"properties": {name: {"maximum": 50}}, "required": [name]},
            ],
            "maxProperties": 1,
        }

    def _shared(self, depth: int) -> Schema:
        """Two members that refer to the same definition."""
        name = f"shared/{len(self._definitions)}"
        self._definitions[name] = {}
        self._definitions[name] = self._any(depth + 1)
        reference = {"$ref": f"#/$defs/{name.replace('/', '~1')}"}
        return {
            "type": "object",
            "properties": {"one": reference, "other": reference},
            "required": ["one"],
            "additionalProperties": False,
        }

    def _tree(self, _: int) -> Schema:
        """A definition that refers to itself."""
        name = f"tree{len(self._definitions)}"
        self._definitions[name] = {
            "type": "object",
            "properties": {
                "label": self._scalar(),
                "children": {
                    "type": "array",
                    "items": {"$ref": f"#/$defs/{name}"},
                    "maxItems": 1,
                },
            },
            "required": ["label"],
            "additionalProperties": False,
        }
        return {"$ref": f"#/$defs/{name}"}

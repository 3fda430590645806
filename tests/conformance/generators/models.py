"""Models as users of Pydantic 2 declare them: each a class of arguments, with a few instances.

The instances are what a client would send, in the order of the fields.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from re import Pattern
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar

from annotated_types import Ge, Len, Lt, MultipleOf
from pydantic import (
    AfterValidator,
    AliasChoices,
    AnyUrl,
    AwareDatetime,
    Base64Str,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    FilePath,
    HttpUrl,
    Json,
    NegativeInt,
    NonNegativeFloat,
    PositiveInt,
    RootModel,
    SecretStr,
    StrictInt,
    StringConstraints,
    Tag,
    WithJsonSchema,
    computed_field,
    conint,
    conlist,
    constr,
    create_model,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

T = TypeVar("T")
K = TypeVar("K")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Point(BaseModel):
    x: float
    y: float = 0.0


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog", "hound"]
    name: str


class Tree(BaseModel):
    name: str
    below: list[Tree] = []


class Employee(BaseModel):
    name: str
    boss: Employee | None = None
    team: Team | None = None


class Team(BaseModel):
    members: list[Employee]


class Expression(BaseModel):
    op: Literal["+", "-"]
    left: Expression | float
    right: Expression | float


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int


class Pair(BaseModel, Generic[K, T]):
    key: K
    value: T


class Address(TypedDict):
    street: str
    zip: NotRequired[str]


class Partial(TypedDict, total=False):
    a: int
    b: str


class Spot(NamedTuple):
    x: int
    y: int = 0


@dataclass
class Plain:
    a: int
    b: str = "x"


@pydantic_dataclass
class Checked:
    n: Annotated[int, Field(gt=0)]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    first_name: str
    zip_code: int


class Aliased(BaseModel):
    value: int = Field(alias="theValue")
    other: int = Field(validation_alias=AliasChoices("m", "n"), serialization_alias="o")


class Area(BaseModel):
    width: float
    height: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> float:
        return self.width * self.height


class Described(BaseModel):
    """Has words everywhere."""

    model_config = ConfigDict(title="Words", json_schema_extra={"examples": [{"a": "x"}]})
    a: str = Field(description="A text", examples=["x"], title="The text")
    old: int = Field(0, deprecated=True)


class Base(BaseModel):
    id: int


class Derived(Base):
    name: str


def kind_of(value: Any) -> str:
    return "text" if isinstance(value, str) else "point"


Tagged = Annotated[
    Annotated[str, Tag("text")] | Annotated[Point, Tag("point")], Discriminator(kind_of)
]
Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
Even = Annotated[int, AfterValidator(lambda value: value)]
Stripped = Annotated[str, BeforeValidator(str), StringConstraints(strip_whitespace=True)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(?:-[a-z0-9]+)*$", max_length=40)]
Shown = Annotated[dt.timedelta, WithJsonSchema({"type": "string", "pattern": "^[0-9]+s$"})]

ID = "123e4567-e89b-42d3-a456-426614174000"
NOON = "2024-05-06T12:00:00Z"

FIELDS: dict[str, tuple[Any, list[Any]]] = {
    "bool": (bool, [True, "x"]),
    "int": (int, [3, 0.5]),
    "float": (float, [1.5, "x"]),
    "str": (str, ["x", 1]),
    "bytes": (bytes, ["x"]),
    "none": (None, [None, 1]),
    "any": (Any, [1, {"a": []}]),
    "optional": (int | None, [1, None, "x"]),
    "union": (int | str | list[int], [1, "x", [1], ["x"]]),
    "literal": (Literal["a", 1] | None, ["a", 1, None, "b"]),
    "single literal": (Literal["a"], ["a", "b"]),
    "enum": (Color, ["red", "blue"]),
    "int enum": (Level, [1, 3]),
    "mixed enum": (Mixed, [1, "two", 2]),
    "decimal": (Decimal, [1.5, "1.50", "x"]),
    "decimal limits": (Annotated[Decimal, Field(max_digits=5, decimal_places=2)], [1.5, "1.50"]),
    "decimal bounds": (Annotated[Decimal, Field(ge=0, le=10)], [0, 10, 11]),
    "64 bits": (Annotated[int, Field(ge=-(2**63), le=2**63 - 1)], [0, -5]),
    "unsigned": (Annotated[int, Field(ge=0, lt=2**64)], [0, 7, -1]),
    "int32": (Annotated[int, Ge(-(2**31)), Lt(2**31)], [-(2**31), 2**31 - 1, 2**31]),
    "constrained int": (conint(gt=1, lt=9, multiple_of=3), [3, 6, 9, 4]),
    "annotated": (Annotated[float, MultipleOf(0.5)], [0.5, 1, 0.3]),
    "signs": (tuple[PositiveInt, NegativeInt, NonNegativeFloat], [[1, -1, 0], [0, -1, 0]]),
    "constrained str": (constr(min_length=2, max_length=3), ["ab", "abc", "a", "abcd"]),
    "pattern": (constr(pattern=r"^\d+$"), ["12", "a"]),
    "slug": (Slug, ["a-b", "A", "a-"]),
    "constrained list": (conlist(int, min_length=1, max_length=2), [[1], [1, 2], [], [1, 2, 3]]),
    "lengths": (Annotated[list[str], Len(2, 2)], [["a", "b"], ["a"]]),
    "strict": (StrictInt, [1, "1"]),
    "list": (list[Point], [[{"x": 1.0, "y": 2.0}], [{"y": 1}], []]),
    "tuple": (tuple[int, str], [[1, "x"], [1], ["x", 1]]),
    "open tuple": (tuple[int, ...], [[], [1, 2], ["x"]]),
    "empty tuple": (tuple[()], [[], [1]]),
    "named tuple": (Spot, [[1, 2], [1], []]),
    "set": (set[int], [[1, 2], []]),
    "frozenset": (frozenset[Color], [["red"], []]),
    "deque": (deque[int], [[1], ["x"]]),
    "sequence": (Sequence[str], [["x"], [1]]),
    "dict": (dict[str, int], [{"a": 1}, {}, {"a": "x"}]),
    "bare dict": (dict, [{"a": 1}, 1]),
    "mapping": (Mapping[str, list[int]], [{"a": [1]}, {"a": ["x"]}]),
    "dict by enum": (dict[Color, int], [{"red": 1}, {"blue": 1}, {}]),
    "dict by literal": (dict[Literal["a", "b"], int], [{"a": 1, "b": 2}, {"c": 1}]),
    "dict by UUID": (dict[uuid.UUID, int], [{ID: 1}, {"a": 1}]),
    "dict by int": (dict[int, str], [{"1": "x"}, {}]),
    "dict by pattern": (dict[constr(pattern="^k"), int], [{"ka": 1}, {"a": 1}]),  # type: ignore[misc]
    "dict by date": (dict[dt.date, int], [{"2024-05-06": 1}]),
    "dict by length": (dict[constr(min_length=2), int], [{"ka": 1}, {"a": 1}]),  # type: ignore[misc]
    "dict lengths": (Annotated[dict[str, int], Len(1, 2)], [{"a": 1}, {}]),
    "datetime": (dt.datetime, [NOON, "noon"]),
    "aware": (AwareDatetime, [NOON, "2024-05-06"]),
    "date": (dt.date, ["2024-05-06", "2024-13-06"]),
    "time": (dt.time, ["12:00:00Z", "25:00:00Z"]),
    "timedelta": (dt.timedelta, ["P1DT2H", "x"]),
    "UUID": (uuid.UUID, [ID, "x"]),
    "URL": (AnyUrl, ["https://example.org/a", "x y"]),
    "http": (HttpUrl, ["https://example.org/a"]),
    "addresses": (tuple[IPv4Address, IPv6Address], [["10.0.0.1", "::1"], ["10.0.0.256", "::1"]]),
    "path": (Path, ["/a/b"]),
    "file path": (FilePath, ["/a/b"]),
    "secret": (SecretStr, ["x"]),
    "base64": (Base64Str, ["aGk="]),
    "json": (Json[list[int]], ["[1]"]),
    "regex": (Pattern[str], ["a+"]),
    "byte size": (ByteSize, [12, "1kB"]),
    "model": (Point, [{"x": 1.0, "y": 2.0}, {"y": 1}]),
    "two models": (Cat | Point, [{"kind": "cat", "lives": 9}, {"x": 1, "y": 2}]),
    "discriminated": (Pet, [{"kind": "hound", "name": "x"}, {"kind": "cat", "name": "x"}]),
    "list of discriminated": (list[Pet], [[{"kind": "cat", "lives": 9}], [{"kind": "cow"}]]),
    "callable discriminator": (Tagged, ["x", {"x": 1, "y": 0}, 1]),
    "recursive": (Tree, [{"name": "a", "below": [{"name": "b", "below": []}]}, {"below": []}]),
    "mutually recursive": (Employee, [{"name": "a", "boss": None, "team": {"members": []}}]),
    "expression": (
        Expression,
        [{"op": "+", "left": 1, "right": {"op": "-", "left": 1, "right": 2}}, {"op": "*"}],
    ),
    "generic": (Page[Point], [{"items": [{"x": 1, "y": 2}], "total": 1}, {"items": [1]}]),
    "generic of two": (Pair[Color, list[int]], [{"key": "red", "value": [1]}]),
    "nested generic": (Page[Page[int]], [{"items": [{"items": [1], "total": 1}], "total": 1}]),
    "typed dict": (Address, [{"street": "x"}, {"street": "x", "zip": "1"}, {"zip": "1"}]),
    "partial typed dict": (Partial, [{}, {"a": 1, "b": "x"}, {"a": "x"}]),
    "dataclass": (Plain, [{"a": 1, "b": "y"}, {"b": "y"}]),
    "checked dataclass": (Checked, [{"n": 1}, {"n": 0}]),
    "closed": (Closed, [{"a": 1}, {"a": 1, "b": 2}]),
    "open": (Open, [{"a": 1}, {"a": 1, "b": 2}]),
    "alias generator": (Camel, [{"firstName": "x", "zipCode": 1}, {"first_name": "x"}]),
    "computed": (Area, [{"width": 1, "height": 2, "area": 2}, {"height": 1}]),
    "described": (Described, [{"a": "x", "old": 1}, {"old": 1}]),
    "derived": (Derived, [{"id": 1, "name": "x"}, {"id": 1}]),
    "validators": (tuple[Even, Stripped], [[2, "x"], ["x", 2]]),
    "own schema": (Shown, ["12s"]),
    "default factory": (Annotated[list[int], Field(default_factory=list)], [[1], ["x"]]),
    "default object": (Annotated[Point, Field(default=Point(x=1))], [{"x": 1, "y": 2}, 1]),
    "root": (RootModel[list[int]], [[1], ["x"]]),
    "root of dict": (RootModel[dict[Color, Point]], [{"red": {"x": 1, "y": 2}}, {"x": 1}]),
}
"""The type of one field each, and values for it, of which some match."""

MODELS: dict[str, tuple[type[BaseModel], list[dict[str, Any]]]] = {
    name: (create_model("Arguments", value=(kind, ...)), [{"value": each} for each in values])
    for name, (kind, values) in FIELDS.items()
} | {
    "a model itself": (Point, [{"x": 1.0, "y": 2.0}, {"y": 2.0}]),
    "a tree itself": (Tree, [{"name": "a", "below": [{"name": "b", "below": []}]}]),
    "aliases itself": (Camel, [{"firstName": "x", "zipCode": 1}]),
    "aliases of fields": (Aliased, [{"theValue": 1, "m": 2, "o": 2}]),
    "computed itself": (Area, [{"width": 1.0, "height": 2.0}]),
    "closed itself": (Closed, [{"a": 1}]),
    "open itself": (Open, [{"a": 1}]),
}

_DEFINITIONS = {
    "Color": {"title": "Color", "description": "An enumeration.", "enum": ["red", "green"]},
    "Item": {
        "title": "Item",
        "type": "object",
        "properties": {"name": {"title": "Name", "type": "string"}},
        "required": ["name"],
    },
}


def _of_pydantic_1(name: str, field: dict[str, Any], **more: Any) -> dict[str, Any]:
    properties = {"value": {"title": name.title(), **field}}
    return {"title": "Arguments", "type": "object", "properties": properties, **more}


PYDANTIC_1: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "enum": ({"$ref": "#/definitions/Color"}, ["red", "blue"]),
    "enum with default": (
        {"default": "red", "allOf": [{"$ref": "#/definitions/Color"}]},
        ["green", "blue"],
    ),
    "model": (
        {"title": "Value", "description": "x", "allOf": [{"$ref": "#/definitions/Item"}]},
        [{"name": "x"}, {}],
    ),
    "list": ({"type": "array", "items": {"$ref": "#/definitions/Item"}}, [[{"name": "x"}], [1]]),
    "optional": ({"type": "integer"}, [1, None]),
    "tuple": (
        {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": [{"type": "integer"}, {"type": "string"}],
        },
        [[1, "x"], [1], ["x", 1]],
    ),
    "union": ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, [1, "x", []]),
    "literal": ({"enum": ["a", "b"], "type": "string"}, ["a", "c"]),
    "const": ({"const": "a", "type": "string"}, ["a", "b"]),
    "bounds": ({"exclusiveMinimum": 0, "maximum": 9, "type": "integer"}, [1, 9, 0, 10]),
    "dict": ({"type": "object", "additionalProperties": {"type": "number"}}, [{"a": 1}, {"a": ""}]),
    "pattern dict": (
        {"type": "object", "patternProperties": {"^a": {"type": "integer"}}},
        [{"ab": 1}],
    ),
    "secret": ({"type": "string", "writeOnly": True, "format": "password"}, ["x", 1]),
    "time span": ({"type": "number", "format": "time-delta"}, [1.5, "x"]),
    "json": ({"type": "string", "format": "json-string"}, ["[1]", 1]),
    "discriminated": (
        {
            "discriminator": {"propertyName": "k", "mapping": {"a": "#/definitions/Item"}},
            "oneOf": [{"$ref": "#/definitions/Item"}, {"$ref": "#/definitions/Color"}],
        },
        [{"name": "x"}, "red"],
    ),
}
"""Fields as Pydantic 1 writes them."""

SCHEMAS_OF_1 = {
    name: (_of_pydantic_1(name, field, definitions=_DEFINITIONS), [{"value": v} for v in values])
    for name, (field, values) in PYDANTIC_1.items()
}

"""Bodies checked against their schemas, and answers written as JSON."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from server.core.errors import InvalidRequest, Locator, UnknownParameter, path_text
from server.core.quoted_numbers import unquoted
from server.core.sampling import PARAMETERS

_LONGEST_MESSAGE = 400
"""A choice: some names of ours, and enough of the input to find it."""

Body = TypeVar("Body", bound=BaseModel)


class Respelled(NamedTuple):
    """A body under the names of its schema, and where the client wrote each renamed field."""

    body: dict[str, Any]
    places: Mapping[str, Locator] = {}


class WireModel(BaseModel):
    """A part of a request: nothing is converted (``true`` is no number).

    Fields that it does not know are kept as extras: clients send names of other servers. The
    answer names them (`server.api.ignored_names`); the setting ``strict_parameters`` refuses them.
    """

    # Each is built for the first body of its kind: all together would take a part of every start.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)

    _places: Mapping[str, Locator] = PrivateAttr(default_factory=dict)

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under the names of this schema; raises InvalidRequest where names clash."""
        return Respelled(body)

    def remember(self, places: Mapping[str, Locator]) -> None:
        """Keep where the client wrote the fields that have other names here."""
        self._places = places

    def place(self, at: Locator) -> Locator:
        """Where the client wrote the field that this schema has at ``at``."""
        return _moved(at, self._places)


class Opaque(WireModel):
    """A part that is refused or left out as a whole, whatever its fields."""


def whole(value: object) -> object:
    """``value``, as an integer if it is one written like ``5.0``: JSON knows no difference."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def validate(value: dict[str, Any], model: type[Body], *, strict: bool = False) -> Body:
    """``value`` as ``model``; raises InvalidRequest for the first wrong field.

    The error's place is the path of that field. With ``strict``, a field that the schema does not
    know is an UnknownParameter.
    """
    respelled = model.respelled(value) if issubclass(model, WireModel) else Respelled(value)
    numbers = {
        name: whole(unquoted(respelled.body[name]))
        if int in kinds
        else unquoted(respelled.body[name])
        for name, kinds in _number_fields(model).items()
        if name in respelled.body
    }
    try:
        body = model.model_validate({**respelled.body, **numbers})
    except ValidationError as error:
        raise _explain(error, respelled) from None
    if isinstance(body, WireModel):
        body.remember(respelled.places)
    if strict:
        for at in unknown_fields(body):
            raise UnknownParameter(f"Unrecognized request argument: {path_text(at)}.", at=at)
    return body


def unknown_fields(part: object, at: Locator = ()) -> Iterator[Locator]:
    """The paths of fields in ``part`` of a body that its schema does not know and are not null."""
    if isinstance(part, list):
        for index, item in enumerate(part):
            yield from unknown_fields(item, (*at, index))
    elif isinstance(part, BaseModel) and not isinstance(part, Opaque):
        yield from (
            (*at, name) for name, value in (part.model_extra or {}).items() if value is not None
        )
        for name in type(part).model_fields:
            if name in part.model_fields_set:
                yield from unknown_fields(getattr(part, name), (*at, name))


@cache
def _number_fields(model: type[BaseModel]) -> Mapping[str, frozenset[Any]]:
    """The fields of ``model`` whose value may be a number and no text, with their types."""
    kinds = {
        name: frozenset(_parts(field.annotation)) for name, field in model.model_fields.items()
    }
    return {name: each for name, each in kinds.items() if each & {int, float} and str not in each}


def _parts(annotation: Any) -> Iterator[Any]:
    """The types of a union, without their constraints."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from _parts(typing.get_args(annotation)[0])
    elif origin in {UnionType, Union}:
        for part in typing.get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def sampling_field(name: str) -> Any:
    """The field of a sampling parameter, with its range and its meaning; None is the default."""
    parameter = PARAMETERS[name]
    least, most = parameter.kind(parameter.least), parameter.kind(parameter.most)
    if parameter.above_least:
        return Field(None, description=parameter.text, gt=least, le=most)
    return Field(None, description=parameter.text, ge=least, le=most)


def to_json(body: BaseModel) -> bytes:
    """``body`` with the fields that were set, null included."""
    return body.model_dump_json(exclude_unset=True).encode()


def _explain(error: ValidationError, respelled: Respelled) -> InvalidRequest:
    """The first problem, in the branch of a union that fits the input best."""
    problems = [_Problem.of(each) for each in error.errors(include_url=False, include_input=False)]
    first = problems[0].location[:1]
    paths = [
        (_path(problem, respelled.body), problem)
        for problem in problems
        if problem.location[:1] == first
    ]
    path, problem = max(paths, key=lambda found: len(found[0]))
    at = _moved(path, respelled.places)
    return InvalidRequest(f"{path_text(at)}: {_shortened(problem.message)}.", at=at)


class _Problem(NamedTuple):
    """Something wrong where pydantic sees it; ``missing`` is whether the field is not there."""

    location: Locator
    message: str
    missing: bool

    @classmethod
    def of(cls, error: ErrorDetails) -> _Problem:
        """An object of no known kind lacks the field that states the kind, or has a wrong one."""
        location, kind = error["loc"], error["type"]
        if kind not in {"union_tag_invalid", "union_tag_not_found"}:
            return cls(location, error["msg"], kind == "missing")
        location = (*location, error["ctx"]["discriminator"].strip("'"))
        if kind == "union_tag_not_found":
            return cls(location, "Field required", missing=True)
        return cls(location, f"Input should be one of {error['ctx']['expected_tags']}", False)


def _shortened(message: str) -> str:
    """A message of pydantic, which may quote the input, without the middle of a long one."""
    if len(message) <= _LONGEST_MESSAGE:
        return message
    half = _LONGEST_MESSAGE // 2
    return f"{message[:half]} … {message[-half:]}"


def _moved(at: Locator, places: Mapping[str, Locator]) -> Locator:
    if at and at[0] in places:
        return (*places[str(at[0])], *at[1:])
    return at


def _path(problem: _Problem, value: Any) -> Locator:
    """The steps of a problem's location that lead into ``value``, and a missing one behind them.

    pydantic adds the names of union branches, which may also be keys: ``text`` is the kind of a
    part and one of its fields. The right reading ends at the field at fault, and takes a step for
    the name of a branch where the object says that it is of this kind.
    """
    *steps, last = problem.location
    read = _readings(tuple(steps) if problem.missing else problem.location, value)
    best = max(read, key=lambda reading: reading.rank(last, missing=problem.missing))
    ends = problem.missing and isinstance(best.value, dict)
    return (*best.path, last) if ends else best.path


class _Reading(NamedTuple):
    """One way to follow a location: the path, what it leads to, and how many tags were skipped."""

    path: Locator
    value: Any
    tags: int

    def rank(self, last: int | str, *, missing: bool) -> tuple[bool, int, int]:
        """How well it explains a problem at ``last``."""
        if missing:
            fits = isinstance(self.value, dict) and last not in self.value
        else:
            fits = self.path[-1:] == (last,)
        return fits, self.tags, len(self.path)


def _readings(
    location: tuple[int | str, ...], value: Any, *, tagged: bool = False
) -> Iterator[_Reading]:
    """All readings; ``tagged`` says that the tag of ``value`` was skipped already."""
    if not location:
        yield _Reading((), value, 0)
        return
    step, rest = location[0], location[1:]
    inside_object = isinstance(value, dict) and step in value
    inside_array = isinstance(value, list) and isinstance(step, int) and step < len(value)
    if inside_object or inside_array:
        for reading in _readings(rest, value[step]):
            yield reading._replace(path=(step, *reading.path))
    if not inside_array:
        tag = not tagged and inside_object and step in (value.get("type"), value.get("role"))
        for reading in _readings(rest, value, tagged=tagged or tag):
            yield reading._replace(tags=reading.tags + tag)

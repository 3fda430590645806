"""Bodies checked against their schemas, and answers written as JSON."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.core.errors import InvalidRequest, UnknownParameter, path_text
from server.core.sampling import PARAMETERS

Body = TypeVar("Body", bound=BaseModel)


class WireModel(BaseModel):
    """A part of a request: nothing is converted (``true`` is no number), nothing is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def validate(value: dict[str, Any], model: type[Body]) -> Body:
    """``value`` as ``model``; raises InvalidRequest or UnknownParameter for the first wrong field.

    The error's place is the path of that field.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _explain(error, value) from None


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


def _explain(error: ValidationError, value: dict[str, Any]) -> InvalidRequest:
    """The first problem, in the branch of a union that fits the input best."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]["loc"][:1]
    problem = max(
        (problem for problem in problems if problem["loc"][:1] == first),
        key=lambda problem: len(_path(problem["loc"], value)),
    )
    path = _path(problem["loc"], value)
    if problem["type"] == "missing":
        path.append(problem["loc"][-1])
    at = tuple(path)
    if problem["type"] == "extra_forbidden":
        return UnknownParameter(f"Unrecognized request argument: {path_text(at)}.", at=at)
    return InvalidRequest(f"{path_text(at)}: {problem['msg']}.", at=at)


def _path(location: tuple[int | str, ...], value: Any) -> list[int | str]:
    """The steps of ``location`` that lead into ``value``; pydantic adds names of union branches."""
    path: list[int | str] = []
    for step in location:
        inside_object = isinstance(value, dict) and step in value
        inside_array = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if inside_object or inside_array:
            value = value[step]
            path.append(step)
    return path

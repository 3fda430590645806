"""One table of sampling parameters: every place that knows their ranges and defaults agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.api.generation_fields import SamplingFields
from server.api.validation import validate
from server.core.errors import InvalidRequest
from server.core.sampling import PARAMETERS, Parameter, Sampling
from server.library.sidecar import InvalidSidecar, read_sidecar


def in_range(parameter: Parameter) -> list[int | float]:
    """The ends of the range, or what is closest to an end that is left out."""
    least = parameter.least + 1e-6 if parameter.above_least else parameter.least
    return [parameter.kind(least), parameter.kind(parameter.most)]


def out_of_range(parameter: Parameter) -> list[int | float]:
    step = 1 if parameter.kind is int else 1e-6
    least = parameter.least if parameter.above_least else parameter.least - step
    return [parameter.kind(least), parameter.kind(parameter.most + step)]


CASES = [
    pytest.param(name, value, fits, id=f"{name}={value}")
    for name, parameter in PARAMETERS.items()
    if name != "seed"  # TOML's integers end where its range does
    for values, fits in ((in_range(parameter), True), (out_of_range(parameter), False))
    for value in values
]


def test_the_table_the_struct_and_the_wire_have_the_same_parameters() -> None:
    named = {*PARAMETERS, "logit_bias"}
    assert named == set(Sampling.__struct_fields__)
    assert named == set(SamplingFields.model_fields)


def test_the_wire_has_the_type_and_the_meaning_of_each() -> None:
    for name, parameter in PARAMETERS.items():
        field = SamplingFields.model_fields[name]
        assert field.annotation == parameter.kind | None, name
        assert field.description == parameter.text


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_default_is_in_range(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter.default is None or parameter.holds(parameter.default)


@pytest.mark.parametrize(("name", "value", "fits"), CASES)
def test_a_request_and_a_sidecar_accept_the_same_values(
    tmp_path: Path, name: str, value: float, fits: bool
) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f"[sampling]\n{name} = {value}", encoding="utf-8")
    body: dict[str, Any] = {name: value}
    assert PARAMETERS[name].holds(value) == fits
    if fits:
        assert getattr(validate(body, SamplingFields), name) == value
        assert getattr(read_sidecar(path).sampling, name) == value
        return
    with pytest.raises(InvalidRequest) as refused:
        validate(body, SamplingFields)
    assert refused.value.at == (name,)
    with pytest.raises(InvalidSidecar, match=rf"m\.toml: sampling\.{name}: "):
        read_sidecar(path)


@pytest.mark.parametrize("text", ["repeat_penalty = 0", "dry_base = 0.5"])
def test_a_sidecar_cannot_say_what_the_sampler_would_not_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f"[sampling]\n{text}", encoding="utf-8")
    with pytest.raises(InvalidSidecar):
        read_sidecar(path)


@pytest.mark.parametrize("bias", [-100.5, 101.0])
def test_a_bias_has_the_same_limits_everywhere(tmp_path: Path, bias: float) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f"[sampling]\nlogit_bias = {{ 5 = {bias} }}", encoding="utf-8")
    with pytest.raises(InvalidSidecar, match="logit_bias"):
        read_sidecar(path)
    with pytest.raises(InvalidRequest, match="logit_bias"):
        validate({"logit_bias": {"5": bias}}, SamplingFields)


def test_a_silent_request_gets_the_defaults() -> None:
    assert Sampling().real("dry_base") == PARAMETERS["dry_base"].default
    assert Sampling(top_k=7).whole("top_k") == 7
    assert Sampling().whole("repeat_last_n") == 64

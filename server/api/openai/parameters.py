"""The wire's generation parameters, made canonical."""

from __future__ import annotations

from typing import NamedTuple

from server.api.clamped import clamped_header
from server.api.openai.schemas.base import ConstraintFields, GenerationFields, SamplingFields
from server.core.errors import InvalidRequest, UnsupportedParameter
from server.core.model_info import ModelInfo
from server.core.request import Constraint
from server.core.sampling import INT32_MAX, Sampling

_PLAIN_SAMPLING = [name for name in Sampling.__struct_fields__ if name != "logit_bias"]


class CommonParameters(NamedTuple):
    """Parameters of `GenerationFields`, canonical; ``include_usage`` is about the stream."""

    sampling: Sampling
    max_tokens: int | None
    stop: list[str]
    constraint: Constraint | None
    ignore_eos: bool
    include_usage: bool


def common(
    body: GenerationFields, *, max_tokens: int | None, response_format: Constraint | None = None
) -> CommonParameters:
    """The parameters that chat completions and completions have in common.

    Args:
        body: The body.
        max_tokens: Its limit of generated tokens, whatever the field is called.
        response_format: The constraint of OpenAI's own field, where the body has one.

    Raises:
        UnsupportedParameter: A field would change the answer and is not honoured.
        InvalidRequest: Fields contradict each other.
    """
    for name in sorted(body.UNSUPPORTED):
        if getattr(body, name) is not None:
            raise UnsupportedParameter(f"{name} is not supported.", at=(name,))
    return CommonParameters(
        sampling=sampling(body),
        max_tokens=bounded(max_tokens),
        stop=[body.stop] if isinstance(body.stop, str) else list(body.stop or []),
        constraint=constraint(body, response_format),
        ignore_eos=bool(body.ignore_eos),
        include_usage=_include_usage(body),
    )


def sampling(body: SamplingFields) -> Sampling:
    """The sampling parameters."""
    bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
    plain = {name: getattr(body, name) for name in _PLAIN_SAMPLING}
    return Sampling(**plain, logit_bias=bias)


def bounded(max_tokens: int | None) -> int | None:
    """A limit of tokens that fits into a message to the worker; no context is longer."""
    return None if max_tokens is None else min(max_tokens, INT32_MAX)


def answer_headers(body: GenerationFields, info: ModelInfo | None) -> dict[str, str]:
    """The response headers that name what of ``body`` has no effect, and what was lowered.

    Of a model that is not loaded yet it is not known what its template reads.
    """
    names = body.ignored()
    if info is not None and info.template_variables is not None:
        names += [
            name
            for name in ("enable_thinking", "reasoning_effort")
            if getattr(body, name, None) is not None and name not in info.template_variables
        ]
    ignored = {"x-dragoman-ignored": ", ".join(names)} if names else {}
    return ignored | _clamped(body, info)


def _clamped(body: GenerationFields, info: ModelInfo | None) -> dict[str, str]:
    stated = {name: getattr(body, name, None) for name in ("max_completion_tokens", "max_tokens")}
    field = next((name for name, asked in stated.items() if asked is not None), "max_tokens")
    return clamped_header(field, stated[field], info)


def _include_usage(body: GenerationFields) -> bool:
    """Whether usage is asked for; raises InvalidRequest for options without a stream."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise InvalidRequest(
            "stream_options is only allowed when stream is true.", at=("stream_options",)
        )
    return bool(body.stream_options.include_usage)


def constraint(
    body: ConstraintFields, response_format: Constraint | None = None
) -> Constraint | None:
    """The answer's constraint; raises InvalidRequest where a body states more than one."""
    found: dict[str, Constraint] = {}
    if body.regex is not None:
        found["regex"] = Constraint(kind="regex", body=body.regex)
    if body.choice is not None:
        found["choice"] = Constraint.of("choice", body.choice)
    if body.lark is not None:
        found["lark"] = Constraint(kind="lark", body=body.lark)
    if body.grammar is not None:
        found["grammar"] = Constraint(kind="gbnf", body=body.grammar)
    if response_format is not None:
        found["response_format"] = response_format
    if len(found) > 1:
        names = " and ".join(found)
        raise InvalidRequest(f"{names} exclude each other.", at=(list(found)[1],))
    return next(iter(found.values()), None)

"""The wire's generation parameters, made canonical."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from server.api.billing_header import BILLING_HEADER, is_billed
from server.api.clamped import clamped_header
from server.api.constraint_fields import constraint
from server.api.generation_fields import ThinkingFields, as_list, bounded
from server.api.ignored_names import ignored_header, without_reasoning
from server.api.openai.schemas.base import GenerationFields
from server.api.openai.schemas.chat_request import ChatMessage, InstructionMessage
from server.core.errors import InvalidRequest, UnsupportedParameter, path_text
from server.core.model_info import ModelInfo
from server.core.request import Constraint
from server.core.sampling import Sampling


class CommonParameters(NamedTuple):
    """Parameters of `GenerationFields`, canonical; ``include_usage`` is about the stream."""

    sampling: Sampling
    max_tokens: int | None
    min_tokens: int
    stop: list[str]
    stop_token_ids: list[int]
    constraint: Constraint | None
    ignore_eos: bool
    include_usage: bool


def common(body: GenerationFields, *, max_tokens: int | None) -> CommonParameters:
    """The parameters that chat completions and completions have in common.

    ``max_tokens`` is the limit of generated tokens, whatever the body's field is called.

    Raises:
        UnsupportedParameter: A field would change the answer and is not honoured.
        InvalidRequest: Fields contradict each other.
    """
    for name in sorted(body.UNSUPPORTED):
        if getattr(body, name) is not None:
            raise UnsupportedParameter(f"{name} is not supported.", at=(name,))
    return CommonParameters(
        sampling=body.sampling(),
        max_tokens=bounded(max_tokens),
        min_tokens=body.min_tokens or 0,
        stop=as_list(body.stop),
        stop_token_ids=body.stop_token_ids or [],
        constraint=constraint(body),
        ignore_eos=bool(body.ignore_eos),
        include_usage=_include_usage(body),
    )


def answer_headers(
    body: GenerationFields, ignored: Sequence[str], info: ModelInfo | None
) -> dict[str, str]:
    """The response headers that name what of ``body`` has no effect, and what was lowered.

    ``ignored`` are the names of what has none whatever the model. Of one that is not loaded yet it
    is not known what its template reads.
    """
    names = [*ignored]
    if _is_billed(getattr(body, "messages", [])[:1]):
        names.append(f"messages.{BILLING_HEADER}")
    if isinstance(body, ThinkingFields):
        names += unread_variables(body, info)
    if without_reasoning(getattr(body, "reasoning_budget", None), info):
        names.append(path_text(body.place(("reasoning_budget",))))
    return ignored_header(names) | _clamped(body, info)


def unread_variables(body: ThinkingFields, info: ModelInfo | None) -> list[str]:
    """The variables in ``body`` that the model's template does not read, as far as it is known."""
    read = None if info is None else info.template_variables
    return [] if read is None else body.unread(read)


def _is_billed(first: Sequence[ChatMessage]) -> bool:
    return any(
        isinstance(message, InstructionMessage) and is_billed(message.content) for message in first
    )


def _clamped(body: GenerationFields, info: ModelInfo | None) -> dict[str, str]:
    stated = {name: getattr(body, name, None) for name in ("max_completion_tokens", "max_tokens")}
    field = next((name for name, asked in stated.items() if asked is not None), "max_tokens")
    asked = {path_text(body.place((field,))): stated[field], "num_ctx": body.num_ctx}
    return clamped_header(asked, info)


def _include_usage(body: GenerationFields) -> bool:
    """Whether usage is asked for; raises InvalidRequest for options without a stream."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise InvalidRequest(
            "stream_options is only allowed when stream is true.", at=("stream_options",)
        )
    return bool(body.stream_options.include_usage)

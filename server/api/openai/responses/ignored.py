"""What of a request has no effect, and the header that says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from server.api import ignored_names as shared
from server.api.openai.responses.schemas.lenient import unknown_fields
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.core.model_info import ModelInfo

_WITHOUT_EFFECT = (
    "max_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "stream_options",
    "user",
)
_KNOWN_INCLUDES = {"message.output_text.logprobs", "reasoning.encrypted_content"}


def ignored_names(body: ResponsesRequest) -> Iterator[str]:
    """Paths of the fields of ``body`` that have no effect, apart from items and tools."""
    yield from (name for name in _WITHOUT_EFFECT if getattr(body, name) is not None)
    if body.text is not None and body.text.verbosity is not None:
        yield "text.verbosity"
    for name in ("text", "reasoning"):
        part = getattr(body, name)
        if part is not None:
            yield from (f"{name}.{field}" for field in unknown_fields(part))
    yield from ignored_includes(body.include or [])
    yield from unknown_fields(body)


def ignored_includes(names: Sequence[str]) -> Iterator[str]:
    """Which ``names`` of what to include are not known here."""
    return (f"include ({name})" for name in names if name not in _KNOWN_INCLUDES)


def ignored_header(
    names: Sequence[str], info: ModelInfo | None, *, effort: str | None
) -> dict[str, str]:
    """The response header that names what of a request has no effect.

    Of a model that is not loaded yet it is not known what its template reads.
    """
    shown = list(names)
    if effort is not None and info is not None and info.template_variables is not None:
        switches = {"reasoning_effort"} | ({"enable_thinking"} if effort == "none" else set())
        if not switches & set(info.template_variables):
            shown.append("reasoning.effort")
    return shared.ignored_header(shown)

"""What of a request has no effect, and the header that says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from server.api import ignored_names as shared
from server.api.ignored_names import without_places
from server.api.openai.responses.auto_compaction import ignored_entries
from server.api.openai.responses.schemas.lenient import unknown_fields
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.api.validation import unknown_fields as nested_unknown_fields
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
    for name in ("text", "reasoning", "conversation"):
        part = getattr(body, name)
        yield from (without_places((name, *at)) for at in nested_unknown_fields(part))
    yield from ignored_entries(body)
    yield from ignored_includes(body.include or [])
    yield from unknown_fields(body)


def ignored_includes(names: Sequence[str]) -> Iterator[str]:
    """Which ``names`` of what to include are not known here."""
    return (f"include ({name})" for name in names if name not in _KNOWN_INCLUDES)


def ignored_header(
    names: Sequence[str], body: ResponsesRequest, info: ModelInfo | None
) -> dict[str, str]:
    """The response header that names what of ``body`` has no effect: ``names``, and switches.

    Of a model that is not loaded yet it is not known what its template reads.
    """
    shown = list(names)
    if info is not None and info.template_variables is not None:
        shown += _unread(body, set(info.template_variables))
    return shared.ignored_header(shown)


def _unread(body: ResponsesRequest, read: set[str]) -> Iterator[str]:
    yield from body.unread(read)
    options = body.reasoning
    if options is None:
        return
    if options.enabled is not None and "enable_thinking" not in read:
        yield "reasoning.enabled"
    switches = {"reasoning_effort"} | ({"enable_thinking"} if options.effort == "none" else set())
    if options.effort is not None and not switches & read:
        yield "reasoning.effort"

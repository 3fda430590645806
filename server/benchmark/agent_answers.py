"""Reading the streams of ``/v1/messages`` and ``/v1/responses``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec

from server.benchmark.timed_client import Answer, Api, Piece, events, reason

_ENDS = {"message_stop", "response.completed", "response.incomplete"}
_FAILURES = {"error", "response.failed"}
_TEXTS = {
    "response.output_text.delta",
    "response.reasoning_text.delta",
    "response.function_call_arguments.delta",
}


def read_answer(status: int, pieces: Iterable[Piece], started: float, ended: float) -> Answer:
    """The answer in the ``pieces`` of a stream of either API, with the time of each arrival.

    An agent that gets an answer without text has waited for its end, which then counts as the first
    piece: else a prompt that takes long would not count if it is answered by nothing.
    """
    if status != 200:
        said = reason(status, b"".join(piece for _, piece in pieces))
        return Answer(started=started, seconds=ended - started, status=status, error=said)
    stamps: list[float] = []
    texts: list[str] = []
    usage: dict[str, Any] = {}
    error: str | None = "the stream ended early"
    for stamp, data in events(pieces):
        try:
            event = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError as problem:
            error = f"not an event ({problem}): {data[:80]!r}"
            break
        kind = event.get("type")
        usage |= _usage(event)
        if kind in _FAILURES:
            error = str(event.get("error") or event.get("response", {}).get("error"))
            break
        if piece := _text(event):
            stamps.append(stamp)
            texts.append(piece if _is_answer(event) else "")
        if kind in _ENDS:
            error = None
            break
    # Anthropic's count leaves out what was cached, OpenAI's details are a part of its count.
    details = usage.get("input_tokens_details") or {}
    apart = usage.get("cache_read_input_tokens") or 0
    return Answer(
        started=started,
        seconds=ended - started,
        status=status,
        error=error,
        first=None if error else (stamps[0] if stamps else ended) - started,
        gaps=[later - earlier for earlier, later in pairwise(stamps)],
        text="".join(texts),
        prompt_tokens=(usage.get("input_tokens") or 0) + apart,
        cached_tokens=details.get("cached_tokens") or apart,
        completion_tokens=usage.get("output_tokens") or 0,
    )


def _usage(event: dict[str, Any]) -> dict[str, Any]:
    """What an event says of tokens; the last word of each count holds."""
    holder = event.get("message") or event.get("response") or event
    found = holder.get("usage") or {}
    return {name: value for name, value in found.items() if value is not None}


def _text(event: dict[str, Any]) -> str:
    """The piece of the model's text in an event: of its answer, its reasoning or a call."""
    delta = event.get("delta")
    if isinstance(delta, dict):
        fields = ("text", "thinking", "partial_json")
        return next((str(delta[name]) for name in fields if delta.get(name)), "")
    return str(delta) if delta and event.get("type") in _TEXTS else ""


def _is_answer(event: dict[str, Any]) -> bool:
    delta = event["delta"]
    if isinstance(delta, dict):
        return "text" in delta
    return bool(event["type"] == "response.output_text.delta")


MESSAGES = Api("/v1/messages", {"stream": True}, read_answer)
RESPONSES = Api("/v1/responses", {"stream": True}, read_answer)

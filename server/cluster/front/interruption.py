"""The event that ends a stream whose replica was lost."""

from __future__ import annotations

import re

import msgspec

from server.api.error_responses import ErrorResponses
from server.core.errors import DragomanError
from server.http.sse import encode

_RESPONSES = "/v1/responses"
_SEQUENCE = re.compile(rb'"sequence_number":\s*(\d+)')


def last_event(error: DragomanError, *, path: str, respond: ErrorResponses, before: bytes) -> bytes:
    """The event by which the family of ``path`` tells of ``error``; ``before`` was sent last.

    The streams of responses count their events and have an event of the type ``error``
    (https://platform.openai.com/docs/api-reference/responses-streaming/error).
    """
    if path == _RESPONSES or path.startswith(f"{_RESPONSES}/"):
        numbers = _SEQUENCE.findall(before)
        event = {
            "type": "error",
            "code": "server_error",
            "message": error.message,
            "param": None,
            "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
        }
        return encode(msgspec.json.encode(event), "error")
    frame = respond.shape(path).frame(error)
    return encode(frame.data, frame.event)

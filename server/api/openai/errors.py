"""Errors as OpenAI's clients read them (https://platform.openai.com/docs/guides/error-codes).

The body is ``{"error": {"message", "type", "param", "code"}}`` with all four keys; ``param`` and
``code`` are a string or null, and ``code`` is never a number. ``type`` follows from the status.
"""

from __future__ import annotations

from typing import Any

import msgspec

from server.api.family import Frame
from server.core.errors import DragomanError, InvalidRequest, Locator, path_text
from server.core.request import ChatPrompt, GenerationRequest
from server.http.errors import status_of

# Errors without a code of their own on OpenAI's wire.
_WITHOUT_CODE = {DragomanError.code, InvalidRequest.code}


def error_body(error: DragomanError) -> dict[str, Any]:
    """The JSON body a client gets; ``error.at`` is a path into the body that it sent."""
    return {
        "error": {
            "message": error.message,
            "type": error_type(status_of(type(error))),
            "param": path_text(error.at) or None,
            "code": None if error.code in _WITHOUT_CODE else error.code,
        }
    }


def error_frame(error: DragomanError) -> Frame:
    """The event that ends a stream with ``error``."""
    return Frame(msgspec.json.encode(error_body(error)))


def error_type(status: int) -> str:
    """OpenAI's name for the kind of error that has this status."""
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"


def locate(
    at: Locator,
    request: GenerationRequest | None = None,
    *,
    constraint: Locator = (),
    schema: Locator = (),
) -> Locator:
    """Where in an OpenAI body the canonical place ``at`` of ``request`` was stated.

    ``constraint`` is the place of the constraint, ``schema`` that of its JSON Schema.
    """
    match at:
        case ("prompt", *_) if request is not None and isinstance(request.prompt, ChatPrompt):
            at = ("messages",)
        case ("constraint", "schema", *rest) if schema:
            at = (*schema, *rest)
        case ("constraint", *_) if constraint:
            at = constraint
        case ("sampling", name):
            at = (name,)
        case ("adapters", *rest):
            at = ("lora", *rest)
        case ("template_kwargs", *rest):
            at = ("chat_template_kwargs", *rest)
        case ("messages", index, "tool_calls", call, "arguments"):
            at = ("messages", index, "tool_calls", call, "function", "arguments")
        case ("input", *_):
            at = ("input",)
    return at

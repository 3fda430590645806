"""Errors as Anthropic's clients read them (https://docs.claude.com/en/api/errors).

Claude Code decides by the wording whether it can try again with less: see `_message`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from server.api.family import Frame
from server.core.errors import ContextLengthExceeded, DragomanError, Locator, Overloaded
from server.core.ids import request_id
from server.http.errors import status_of

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def status(error: type[DragomanError]) -> int:
    """The status of an error; an overloaded server has one of its own in this API."""
    return 529 if issubclass(error, Overloaded) else status_of(error)


def error_body(error: DragomanError) -> dict[str, Any]:
    """The JSON body a client gets; ``error.at`` is a path into the body that it sent."""
    code = status(type(error))
    kind = _TYPES.get(code, "api_error" if code >= 500 else "invalid_request_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": _message(error)},
        "request_id": request_id.get(),
    }


def error_frame(error: DragomanError) -> Frame:
    """The event that ends a stream with ``error``."""
    return Frame(msgspec.json.encode(error_body(error)), event="error")


def _message(error: DragomanError) -> str:
    """What is wrong, in Anthropic's words where clients look for them.

    Claude Code compacts the conversation when it reads "prompt is too long: N tokens > M maximum".
    """
    if isinstance(error, ContextLengthExceeded) and {"tokens", "most"} <= error.numbers.keys():
        numbers = error.numbers
        said = f"prompt is too long: {numbers['tokens']} tokens > {numbers['most']} maximum"
        return f"{said} (at least so many: not all were counted)" if "at_least" in numbers else said
    return error.message


# Anthropic's own fields, which set variables of the chat template.
_VARIABLES: dict[str, Locator] = {
    "enable_thinking": ("thinking",),
    "reasoning_effort": ("output_config", "effort"),
}


def locate(
    at: Locator,
    *,
    messages: Sequence[Locator],
    parts: Sequence[Sequence[Locator]],
    tools: Sequence[Locator],
) -> Locator:
    """Where in a body the canonical place ``at`` was stated.

    ``messages`` has the place of each message of the prompt, ``parts`` those of the parts of its
    content, ``tools`` the place of each tool.
    """
    match at:
        case ("prompt", *_):
            at = ("messages",)
        case ("messages", int(index), "content", int(number)):
            at = parts[index][number]
        case ("messages", int(index), *_):
            at = messages[index]
        case ("tools", int(index), "parameters", *rest):
            at = (*tools[index], "input_schema", *rest)
        case ("tools", int(index), *rest):
            at = (*tools[index], *rest)
        case ("constraint", *rest):
            at = ("output_config", "format", "schema", *rest[1:])
        case ("sampling", name):
            at = (name,)
        case ("adapters", *rest):
            at = ("lora", *rest)
        case ("template_kwargs", str(name)):
            at = _VARIABLES.get(name, ("chat_template_kwargs", name))
    return at

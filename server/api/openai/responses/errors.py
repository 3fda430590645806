"""Errors of the Responses endpoints, beside those that all of OpenAI's API shares."""

from __future__ import annotations

from server.api.openai.responses.schemas.response import ResponseFailure
from server.core.errors import (
    ContextLengthExceeded,
    DragomanError,
    InvalidRequest,
    QueueFull,
)


class PreviousResponseNotFound(InvalidRequest):
    """There is no such response to go on from."""

    code = "previous_response_not_found"


def failure(error: DragomanError) -> ResponseFailure:
    """``error`` as the reason for which a response failed.

    The codes are OpenAI's, and ``context_length_exceeded``, for which Codex compacts its history.
    """
    message = error.message
    match error:
        case ContextLengthExceeded():
            code = error.code
        case InvalidRequest():
            code = "invalid_prompt"
        case QueueFull(retry_after=seconds):
            code = "rate_limit_exceeded"
            # The wording that Codex reads the time from.
            message += f" Please try again in {seconds or 1:.1f}s."
        case _:
            code = "server_error"
    return ResponseFailure(code=code, message=message)

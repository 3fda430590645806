"""Every error that may reach a client, as one tree.

    DragomanError                     500 server_error
    ├── InvalidRequest                400 invalid_request_error
    │   ├── ContextLengthExceeded     400 context_length_exceeded
    │   ├── UnsupportedParameter      400 unsupported_parameter
    │   ├── UnknownParameter          400 unknown_parameter
    │   ├── ConversationError         400 invalid_conversation
    │   └── InvalidConstraint         400 invalid_constraint
    ├── Unauthorized                  401 invalid_api_key
    ├── Forbidden                     403 forbidden
    ├── NotFound                      404 not_found
    │   └── ModelNotFound             404 model_not_found
    ├── MethodNotAllowed              405 method_not_allowed
    ├── RequestTimeout                408 request_timeout
    ├── PayloadTooLarge               413 payload_too_large
    ├── UnsupportedMediaType          415 unsupported_media_type
    ├── HeadersTooLarge               431 headers_too_large
    ├── QueueFull                     429 queue_full
    ├── WorkerDied                    500 worker_died
    ├── ModelUnavailable              503 model_unavailable
    └── Overloaded                    503 overloaded

The wire shape is OpenAI's: ``{"error": {"message", "type", "param", "code"}}`` with all four keys,
``param`` and ``code`` a string or null (https://platform.openai.com/docs/guides/error-codes).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error as plain data, for crossing the process border.

    ``retry_after`` is in seconds.
    """

    status: int
    type: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None

    def body(self) -> dict[str, Any]:
        """The JSON body a client gets."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class DragomanError(Exception):
    """Root of the tree; each subclass fixes status, type and code."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after

    @property
    def info(self) -> ErrorInfo:
        """This error as plain data."""
        return ErrorInfo(
            self.status, self.type, self.message, self.param, self.code, self.retry_after
        )

    @staticmethod
    def of(info: ErrorInfo) -> DragomanError:
        """The error that was reported as ``info``: of the same class of the tree."""
        found = next(
            (
                error
                for error in _classes(DragomanError)
                if (error.status, error.type, error.code) == (info.status, info.type, info.code)
            ),
            DragomanError,
        )
        return found(info.message, param=info.param, retry_after=info.retry_after)


def _classes(root: type[DragomanError]) -> Iterator[type[DragomanError]]:
    yield root
    for subclass in root.__subclasses__():
        yield from _classes(subclass)


class InvalidRequest(DragomanError):
    """The request cannot be honoured as written."""

    status = 400
    type = "invalid_request_error"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit the context; the message names both counts."""

    code = "context_length_exceeded"


class UnsupportedParameter(InvalidRequest):
    """A known parameter that would change the answer and is not honoured here."""

    code = "unsupported_parameter"


class UnknownParameter(InvalidRequest):
    """A parameter that does not exist."""

    code = "unknown_parameter"


class ConversationError(InvalidRequest):
    """The model's chat template cannot express this conversation."""

    code = "invalid_conversation"


class InvalidConstraint(InvalidRequest):
    """A schema or grammar that cannot be enforced."""

    code = "invalid_constraint"


class Unauthorized(DragomanError):
    """No API key, or a wrong one."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(DragomanError):
    """A request this server refuses to serve, such as one with a foreign Host header."""

    status = 403
    type = "invalid_request_error"
    code = "forbidden"


class NotFound(DragomanError):
    """No such path."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """No such model."""

    code = "model_not_found"


class MethodNotAllowed(DragomanError):
    """The path exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(DragomanError):
    """The client did not send its request in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class PayloadTooLarge(DragomanError):
    """The body is larger than the limit."""

    status = 413
    type = "invalid_request_error"
    code = "payload_too_large"


class UnsupportedMediaType(DragomanError):
    """The body is not JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class HeadersTooLarge(DragomanError):
    """The request's headers are larger than the limit."""

    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"


class QueueFull(DragomanError):
    """The model's queue is full; try again after ``retry_after`` seconds."""

    status = 429
    type = "rate_limit_error"
    code = "queue_full"


class WorkerDied(DragomanError):
    """The model's worker process ended while it worked on the request."""

    code = "worker_died"


class ModelUnavailable(DragomanError):
    """The model cannot be served now; the message says why."""

    status = 503
    code = "model_unavailable"


class Overloaded(DragomanError):
    """The server cannot take more connections, or is shutting down."""

    status = 503
    code = "overloaded"

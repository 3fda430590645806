"""Every error that may reach a client, as one tree; `code` names each for programs.

    DragomanError                     internal_error
    ├── InvalidRequest                invalid_request
    │   ├── ContextLengthExceeded     context_length_exceeded
    │   ├── UnsupportedParameter      unsupported_parameter
    │   ├── UnknownParameter          unknown_parameter
    │   ├── ConversationError         invalid_conversation
    │   ├── InvalidImage              invalid_image
    │   └── InvalidConstraint         invalid_constraint
    ├── NotFound                      not_found
    │   └── ModelNotFound             model_not_found
    ├── RequestTimeout                request_timeout
    ├── QueueFull                     queue_full
    ├── RateLimited                   rate_limit_exceeded
    ├── WorkerDied                    worker_died
    ├── ModelUnavailable              model_unavailable
    ├── StoreUnavailable              store_unavailable
    └── Overloaded                    overloaded

An error knows no wire format. It names the place at fault by a *locator* in canonical terms:
``("messages", 1)`` is the second message. Each API family turns that into the name of its own
field, and a message that begins with `PLACE` is about that field. `server.http.errors` adds the
errors of HTTP itself and has the status of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import msgspec

Locator = tuple[str | int, ...]
"""A path into a request: names of fields, and places in lists from 0.

Canonical paths begin with a field of `GenerationRequest` (``prompt``, ``constraint``,
``sampling``, ``prediction``), with a part of a chat prompt (``messages``, ``tools``,
``template_kwargs``), or with ``model``, ``suffix``, ``input`` or ``dimensions``.
"""

PLACE = "{place}"
"""Stands at the beginning of a message for the name that a family gives the place at fault."""


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error as plain data, to cross the process border; ``retry_after`` is in seconds."""

    code: str
    message: str
    at: Locator = ()
    retry_after: float | None = None
    numbers: dict[str, int] = {}


class DragomanError(Exception):
    """Root of the tree; each class has a ``code`` of its own.

    Args:
        message: The problem, for people. It may begin with `PLACE`.
        at: The place at fault; empty where there is none.
        retry_after: Seconds after which trying again makes sense.
        numbers: Numbers in the message, by name, for families whose clients expect other words.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        at: Locator = (),
        retry_after: float | None = None,
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.template = message
        self.at = at
        self.retry_after = retry_after
        self.numbers = dict(numbers or {})

    @property
    def message(self) -> str:
        """The message, with the place named by its path."""
        return self.worded(path_text(self.at))

    def __str__(self) -> str:
        return self.message

    def worded(self, place: str) -> str:
        """The message, with ``place`` as the name of the place at fault."""
        if self.template.startswith(PLACE):
            return place + self.template.removeprefix(PLACE)
        return self.template

    def moved(self, at: Locator) -> Self:
        """The same error about another place."""
        return type(self)(self.template, at=at, retry_after=self.retry_after, numbers=self.numbers)

    @property
    def info(self) -> ErrorInfo:
        """This error as plain data."""
        return ErrorInfo(self.code, self.template, self.at, self.retry_after, self.numbers)

    @staticmethod
    def of(info: ErrorInfo) -> DragomanError:
        """The error that was reported as ``info``: of the same class of the tree."""
        found = next((kind for kind in _classes(DragomanError) if kind.code == info.code), None)
        return (found or DragomanError)(
            info.message, at=info.at, retry_after=info.retry_after, numbers=info.numbers
        )


def path_text(path: Locator) -> str:
    """A path as text: ``messages[0].content``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:100]}" for step in path)
    return text.removeprefix(".")


def _classes(root: type[DragomanError]) -> Iterator[type[DragomanError]]:
    yield root
    for subclass in root.__subclasses__():
        yield from _classes(subclass)


class InvalidRequest(DragomanError):
    """The request cannot be honoured as written."""

    code = "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit the context; the message names both counts.

    Of a prompt, ``numbers`` has its ``tokens`` and the ``most`` that fit. Where the tokens were not
    counted, ``tokens`` is a lower bound, and ``at_least`` has it, too.
    """

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


class InvalidImage(InvalidRequest):
    """An image that cannot be read, or that is too large."""

    code = "invalid_image"


class InvalidConstraint(InvalidRequest):
    """A schema or grammar that cannot be enforced."""

    code = "invalid_constraint"


class NotFound(DragomanError):
    """Nothing has the name that was asked for."""

    code = "not_found"


class ModelNotFound(NotFound):
    """No such model."""

    code = "model_not_found"


class RequestTimeout(DragomanError):
    """The client did not send its request, or read its answer, in time."""

    code = "request_timeout"


class QueueFull(DragomanError):
    """The model's queue is full; try again after ``retry_after`` seconds."""

    code = "queue_full"


class RateLimited(DragomanError):
    """The API key has used up one of its limits; try again after ``retry_after`` seconds."""

    code = "rate_limit_exceeded"


class WorkerDied(DragomanError):
    """The model's worker process ended while it worked on the request."""

    code = "worker_died"


class ModelUnavailable(DragomanError):
    """The model cannot be served now; the message says why."""

    code = "model_unavailable"


class StoreUnavailable(DragomanError):
    """What is stored cannot be read or written now; the message says why."""

    code = "store_unavailable"


class Overloaded(DragomanError):
    """The server cannot take more connections, or is shutting down."""

    code = "overloaded"

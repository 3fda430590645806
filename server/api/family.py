"""An API family: it parses bodies, encodes reply events, and words errors.

A family is one folder that ends in a `Family`, and one line in `server.app`. Streaming, whole
answers, errors, disconnects, keep-alive comments, metrics, keys and the description at
``/openapi.json`` are the same for all families: `server.api.endpoint` does them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.datastructures import Headers

from server.api.rate_limits import rate_limit_headers
from server.core.errors import ContextLengthExceeded, DragomanError, Locator
from server.core.key_use import LimitState
from server.core.model_info import ModelInfo
from server.core.reply import Reply, ReplyEvent
from server.core.request import GenerationRequest, Prompt
from server.http.errors import status_of

Body = TypeVar("Body", bound=BaseModel)


Shorter = Callable[[ContextLengthExceeded], Sequence[GenerationRequest] | None]
"""Gives shorter requests for ones that the context does not hold; None: they cannot be shorter."""


class Model(Protocol):
    """A model that has not been asked for the reply yet, for what a family wants before that."""

    @property
    def context(self) -> int:
        """The most tokens of a prompt and its reply."""
        ...

    async def count(self, prompt: Prompt) -> int:
        """The tokens of ``prompt``; raises what the worker refuses it for."""
        ...

    async def reply(self, request: GenerationRequest) -> Reply:
        """The whole reply to ``request``; raises what the worker refuses it for."""
        ...


Prepare = Callable[[Model], Awaitable[Sequence[GenerationRequest]]]
"""Gives the requests that a model is asked in place of others, now that it can be asked."""


class Frame(NamedTuple):
    """A server-sent event: one line of data, and the event's type where the family names types."""

    data: bytes
    event: str | None = None


class Encoder(Protocol):
    """Writes one reply in the family's form; each request gets a new one."""

    def frames(self, event: ReplyEvent) -> Iterable[Frame]:
        """The frames in which a stream tells of ``event``."""

    def end(self) -> Iterable[Frame]:
        """The frames that end a stream after the last event."""

    def whole(self, reply: Reply) -> bytes:
        """The JSON of the whole reply."""


async def _settled() -> None:
    """Nothing is left to do when an answer is complete."""


@dataclass(frozen=True, kw_only=True)
class ParsedRequest:
    """A body, turned into canonical requests.

    Attributes:
        model: Id or alias of the model.
        requests: One request for each prompt.
        stream: Whether the reply is a stream of server-sent events.
        encoder: Makes the encoder of the reply, once the model is known.
        locate: Turns a canonical place of an error into a path into the body.
        headers: Headers of the answer; None stands for a model that is not loaded yet.
        keep_alive: The frames that show every ``ping_seconds`` that the stream lives, from before
            the model is loaded on; where there are none, a comment does. Frames of the encoder
            follow in the order in which both were made.
        failed: The frames that end a stream with an error, whose place is a path into the body by
            then. None: the frame of the family's `ErrorShape` does.
        settle: Awaited when an answer is complete, before the client hears of its end; a streamed
            reply of several answers awaits it for each. Awaited once more behind ``failed``.
        prepare: Gives what the model is asked in place of ``requests``, once it is loaded; None:
            nothing else.
        shorter: Where there is none, a request that is too long is refused.
    """

    model: str
    requests: Sequence[GenerationRequest]
    stream: bool
    encoder: Callable[[ModelInfo], Encoder]
    locate: Callable[[Locator], Locator]
    headers: Callable[[ModelInfo | None], dict[str, str]] = lambda _: {}
    keep_alive: Callable[[], Iterable[Frame]] = lambda: ()
    failed: Callable[[DragomanError], Iterable[Frame]] | None = None
    settle: Callable[[], Awaitable[None]] = _settled
    prepare: Prepare | None = None
    shorter: Shorter | None = None


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[Body]):
    """A path that generates: the schema of its body and of its whole answer, and how to parse it.

    ``parse`` raises an InvalidRequest whose place is a path into the body. ``unread_headers`` names
    what of a request's headers has no effect, beside what ``ParsedRequest.headers`` names.
    """

    path: str
    summary: str
    body: type[Body]
    answer: type[BaseModel]
    parse: Callable[[Body], ParsedRequest]
    unread_headers: Callable[[Headers], Sequence[str]] = lambda _: ()


@dataclass(frozen=True, kw_only=True)
class ErrorShape:
    """How a family tells of an error, whose place is a path into the body by then, and of limits.

    Attributes:
        body: The JSON of an answer that is not 2xx.
        frame: The frame that ends a stream.
        schema: The body, for the description of the API.
        status: The status of an answer that is not 2xx.
        limits: Headers of every answer that counts against an API key's limits.
    """

    body: Callable[[DragomanError], Mapping[str, Any]]
    frame: Callable[[DragomanError], Frame]
    schema: type[BaseModel]
    status: Callable[[type[DragomanError]], int] = status_of
    limits: Callable[[Sequence[LimitState]], Mapping[str, str]] = rate_limit_headers


@dataclass(frozen=True, kw_only=True)
class Family:
    """One API family.

    Attributes:
        errors: How it tells of errors; None: as the first family of the application does.
        operations: The paths that generate.
        routers: All other paths.
        variants: Paths of other families, in a form of its own for requests that show that they
            come from its clients (`server.api.variant`).
        bodies: Schemas of the bodies that ``routers`` read, for the description of the API.
    """

    errors: ErrorShape | None = None
    operations: Sequence[Operation[Any]] = ()
    routers: Sequence[APIRouter] = ()
    variants: Sequence[APIRouter] = ()
    bodies: Sequence[type[BaseModel]] = ()

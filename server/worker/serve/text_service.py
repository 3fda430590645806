"""Requests that are computed without the engine, on a thread of their own beside its."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from server.core.errors import ModelUnavailable, QueueFull
from server.engine.llama import LoadError
from server.worker.protocol import Embed, Embedded, Rank, Ranked, refusal
from server.worker.serve.connection import Send
from server.worker.serve.request_queue import RequestQueue

# Tokens of the first context; a longer text gets a larger one. The number is a choice.
_LEAST_TOKENS = 512
# When a full queue may be tried again; a choice, since the lengths of the texts in it are unknown.
_RETRY_SECONDS = 1.0


class _Cancelled(Exception):
    """The request was cancelled while it was computed."""


class Computer(Protocol):
    """Computes texts of at most ``most_tokens`` tokens together, ``most_texts`` at once."""

    @property
    def most_texts(self) -> int:
        """The most texts of one call."""

    @property
    def most_tokens(self) -> int:
        """The most tokens of one call."""

    def close(self) -> None:
        """Free the memory."""


R = TypeVar("R", Embed, Rank)
C = TypeVar("C", bound=Computer)


class TextService(ABC, Generic[R, C]):
    """Answers requests in order of arrival.

    It opens its computer with the first request, since most models are only asked to generate, and
    a larger one when a text needs it.
    """

    def __init__(
        self,
        open_computer: Callable[[int], C],
        send: Send,
        *,
        longest: int,
        queue_size: int,
        what: str,
    ) -> None:
        """``longest`` is the most tokens of a text; ``what`` names what is computed, in plural."""
        self._open = open_computer
        self._send = send
        self._longest = longest
        self._queue_size = queue_size
        self._what = what
        self._queue: RequestQueue[R] = RequestQueue(
            self._answer, send, failure=f"The {what} could not be computed"
        )
        self._pending: set[int] = set()
        self._computer: C | None = None
        self._step_started: float | None = None

    @property
    def step_seconds(self) -> float:
        """How long the current computation has been running."""
        started = self._step_started
        return 0.0 if started is None else time.monotonic() - started

    # --- from the thread that reads the socket ---

    def submit(self, request: R) -> None:
        """Queue ``request``, or refuse it at once when the queue is full."""
        waiting = len(self._pending) - 1  # the first is being computed
        if waiting < self._queue_size:
            self._pending.add(request.id)
            self._queue.put(request, gives_way=request.gives_way)
            return
        error = QueueFull(
            f"The model's queue is full: {waiting} requests for {self._what} are waiting.",
            retry_after=_RETRY_SECONDS,
        )
        self._send(refusal(request, error))

    def cancel(self, request_id: int) -> None:
        """Forget a request; what is being computed for it ends with its current group of texts."""
        self._pending.discard(request_id)

    # --- on its own thread ---

    def run(self) -> None:
        """Answer requests until the process ends."""
        self._queue.run()

    @abstractmethod
    def _compute(self, request: R) -> Embedded | Ranked:
        """The answer to ``request``; each computation in it is a `_step`."""

    def _answer(self, request: R) -> None:
        try:
            answer = self._compute(request)
        except _Cancelled:
            return
        finally:
            self._step_started = None
            self._pending.discard(request.id)
        self._send(answer)

    @contextmanager
    def _step(self, request: R) -> Iterator[None]:
        """Measure what is computed inside, unless ``request`` was cancelled."""
        if request.id not in self._pending:
            raise _Cancelled
        self._step_started = time.monotonic()
        yield

    def _computer_for(self, tokens: int) -> C:
        """A computer for a text of ``tokens`` tokens: the present one where it is large enough.

        Raises ModelUnavailable where there is not enough memory for a new one.
        """
        if self._computer is not None and self._computer.most_tokens >= tokens:
            return self._computer
        if self._computer is not None:
            self._computer.close()
            self._computer = None
        room = max(_LEAST_TOKENS, 1 << (tokens - 1).bit_length())
        try:
            self._computer = self._open(min(room, self._longest))
        except LoadError as error:
            raise ModelUnavailable(f"There is no room to compute {self._what}: {error}.") from error
        return self._computer


def groups(
    texts: list[list[int]], computer: Computer, *, beside: int = 0
) -> Iterator[list[list[int]]]:
    """The texts in order, in groups that ``computer`` takes at once beside ``beside`` tokens."""
    group: list[list[int]] = []
    tokens = beside
    for text in texts:
        if len(group) == computer.most_texts or tokens + len(text) > computer.most_tokens:
            yield group
            group, tokens = [], beside
        group.append(text)
        tokens += len(text)
    yield group

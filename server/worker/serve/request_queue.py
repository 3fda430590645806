"""Requests that are answered one at a time, in order of arrival within their priority."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from queue import PriorityQueue
from typing import Generic, TypeVar

from server.core.errors import DragomanError
from server.worker.protocol import Embed, Generate, Rank, Render, Tokenize, refusal
from server.worker.serve.connection import Send

R = TypeVar("R", bound=Generate | Render | Embed | Rank | Tokenize)

_logger = logging.getLogger(__name__)

_LAST = 2
"""The rank behind all requests."""


class RequestQueue(Generic[R]):
    """A queue and the loop that empties it, on the thread that calls `run`.

    Args:
        answer: Sends the answer to one request. What it raises is sent as a refusal instead.
        send: Takes messages to the API process.
        failure: What to say of an unexpected error; a clause.
    """

    def __init__(self, answer: Callable[[R], None], send: Send, *, failure: str) -> None:
        self._answer = answer
        self._send = send
        self._failure = failure
        # Rank and number come first; no two entries have the same number.
        self._queue: PriorityQueue[tuple[int, int, R | None]] = PriorityQueue()
        self._numbers = count()
        self._current: R | None = None

    def put(self, request: R, *, gives_way: bool = False) -> None:
        """Queue ``request``, from any thread; one that gives way waits for all others."""
        self._queue.put((int(gives_way), next(self._numbers), request))

    def stop(self) -> None:
        """Let `run` return once everything queued so far is answered; from any thread."""
        self._queue.put((_LAST, next(self._numbers), None))

    def fail_current(self, error: DragomanError) -> None:
        """Refuse the request that is being answered, if any; from another thread."""
        if self._current is not None:
            self._send(refusal(self._current, error))

    def run(self) -> None:
        """Answer requests until `stop` is called."""
        while (request := self._queue.get()[-1]) is not None:
            self._current = request
            try:
                self._answer(request)
            except DragomanError as error:
                self._send(refusal(request, error))
            except Exception as error:
                # No error may end the thread that the next request needs.
                _logger.exception("%s", self._failure)
                unexpected = DragomanError(f"{self._failure}: {error}")
                self._send(refusal(request, unexpected))
            finally:
                self._current = None

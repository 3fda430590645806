"""Messages to the engine's thread from others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Lock

from server.engine.answer import Answer


@dataclass(frozen=True, slots=True)
class Submit:
    """Begin a request's answers."""

    answers: Sequence[Answer]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget a request."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End the loop."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image was encoded, or could not be."""


Message = Submit | Cancel | Stop | Encoded


class Inbox:
    """A queue that any thread may put to. ``unread`` is the number of answers still in it."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Message] = SimpleQueue()
        self._submitting = Lock()
        self._submitted = 0
        self._received = 0

    @property
    def unread(self) -> int:
        """Answers that were put and not taken yet."""
        return self._submitted - self._received

    def put(self, message: Message) -> None:
        """Add ``message``; it is read after the current step."""
        if not isinstance(message, Submit):
            self._queue.put(message)
            return
        with self._submitting:
            self._submitted += len(message.answers)
            self._queue.put(message)

    def take(self, *, seconds: float | None = 0.0) -> Message | None:
        """The next message, or None if none comes within ``seconds`` (None: no limit)."""
        try:
            message = self._queue.get(block=seconds != 0, timeout=seconds)
        except Empty:
            return None
        if isinstance(message, Submit):
            self._received += len(message.answers)
        return message

"""Limits on running a chat template: processor time, memory and length of text.

A template is a program that came with a model file. It runs in its own thread while the caller
watches: over a limit, that thread alone gets an asynchronous exception. Python delivers it between
two bytecodes; the sandbox (``sandbox.py``) therefore keeps every single C call short.

The limits are choices, far above what honest templates need. Of 43 published ones, the slowest
compiles in 67 ms and renders a conversation of 512 messages and 1.1 million characters in 21 ms,
gaining less than 3 MiB; given 100 tools, the longest prompt has 1.8 times the characters of its
input; given one line and one tool, it has 5969 (2 cores, November 2026).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from server.core.errors import ConversationError

TIME_LIMIT = 2.0
"""Seconds of processor time one compilation or render may take."""

BLOCKED_LIMIT = 30.0
"""Seconds after which a template is stopped that takes no processor time; a choice."""

GRACE = 0.5
"""Seconds a template has to stop, once told to, before it counts as stuck."""

MEMORY_LIMIT = 256 * 2**20
"""Bytes of private memory the process may gain during one render.

What other threads gain meanwhile counts too, such as KV cells that are used for the first time.
"""

TEXT_ALLOWANCE = 256 * 1024
"""Characters any text of a render may have, however short the input is."""

TEXT_FACTOR = 8
"""Further characters it may have for each character of the input."""

# Seconds between two looks at the clock and the memory: how late a limit may be noticed.
_POLL = 0.02
# How often a thread is told to stop within GRACE; a choice. One exception may be lost, see `abort`.
_SENDS = 5
_MEMORY_FILE = Path("/proc/self/statm")
_TELLS_THREAD_TIME = hasattr(time, "pthread_getcpuclockid")

T = TypeVar("T")


class TemplateLimitExceeded(ConversationError):
    """The model's chat template ran too long, or made too much."""


class _Abort(BaseException):
    """Stops a template's thread."""


class _Budget(threading.local):
    text = TEXT_ALLOWANCE


_budget = _Budget()
_stuck_handler: Callable[[], None] = lambda: None  # noqa: E731


def on_stuck(handler: Callable[[], None]) -> None:
    """Call ``handler`` when a template does not stop; it should end the process soon."""
    global _stuck_handler  # noqa: PLW0603
    _stuck_handler = handler


def text_limit(input_size: int) -> int:
    """The most characters any text of a render may have, for ``input_size`` characters of input."""
    return TEXT_FACTOR * input_size + TEXT_ALLOWANCE


def check_length(length: int) -> None:
    """Refuse a text or container longer than the current render's limit, before it is made.

    Args:
        length: Its characters or elements.

    Raises:
        TemplateLimitExceeded: It is longer.
    """
    if length > _budget.text:
        raise TemplateLimitExceeded(
            f"The model's chat template makes a text of more than {_budget.text} characters."
        )


def run_limited(work: Callable[[], T], *, text: int = TEXT_ALLOWANCE) -> T:
    """Run ``work`` within the limits, and return what it returns or raise what it raises.

    Args:
        work: Pure Python that blocks in no C call.
        text: The longest text it may make, in characters.

    Raises:
        TemplateLimitExceeded: It took too long or too much memory. If it did not stop when told
            to, the handler given to `on_stuck` has been called.
    """
    thread = _Limited(work, text)
    memory_limit = _private_memory() + MEMORY_LIMIT
    deadline = time.monotonic() + BLOCKED_LIMIT
    thread.start()
    thread.join(_POLL)
    while thread.is_alive():
        if thread.processor_seconds() > TIME_LIMIT or time.monotonic() > deadline:
            thread.abort()
            raise TemplateLimitExceeded(
                f"The model's chat template did not finish within {TIME_LIMIT:g} seconds."
            )
        if _private_memory() > memory_limit:
            thread.abort()
            raise TemplateLimitExceeded(
                f"The model's chat template takes more than {MEMORY_LIMIT >> 20} MiB of memory."
            )
        thread.join(_POLL)
    return thread.outcome()


class _Limited(threading.Thread, Generic[T]):
    """Runs one piece of work that can be stopped."""

    def __init__(self, work: Callable[[], T], text: int) -> None:
        super().__init__(name="chat template", daemon=True)
        self._work = work
        self._text = text
        self._results: list[T] = []
        self._errors: list[Exception] = []
        self._gate = threading.Lock()
        self._closed = False
        self._clock: int | None = None
        self._begun = time.monotonic()

    def processor_seconds(self) -> float:
        """Processor time of the thread; elapsed time where the system cannot tell (macOS)."""
        if not _TELLS_THREAD_TIME:
            return time.monotonic() - self._begun
        try:
            return 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # the thread has just ended
            return 0.0

    def run(self) -> None:
        """Do the work once, then close the gate, after which `abort` sends no exception.

        An exception may arrive anywhere in here, even late, and skips the rest of one ``try``. At
        most `_SENDS` arrive, and one more ``try`` is nested, so that one always closes the gate.
        """
        self._shielded(_SENDS)

    def _shielded(self, shields: int) -> None:
        try:
            if shields:
                self._shielded(shields - 1)
            else:
                self._attempt()
            with self._gate:
                self._closed = True
            _deliver_pending()
        except _Abort:
            pass

    def _attempt(self) -> None:
        _budget.text = self._text
        if _TELLS_THREAD_TIME:
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        try:
            self._results.append(self._work())
        except Exception as error:
            self._errors.append(error)

    def abort(self) -> None:
        """Stop the work. The exception is sent several times, since a finaliser may lose one."""
        for _ in range(_SENDS):
            with self._gate:
                if not self._closed:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self.ident or 0), ctypes.py_object(_Abort)
                    )
            self.join(GRACE / _SENDS)
            if not self.is_alive():
                return
        _stuck_handler()

    def outcome(self) -> T:
        """Return what the work returned, or raise what it raised."""
        if self._errors:
            raise self._errors[0]
        return self._results[0]


def _deliver_pending() -> None:
    """Does nothing; Python raises a pending exception at the latest when a function is entered."""


def _private_memory() -> int:
    """Resident bytes that no file backs, so without a model's mapped weights; 0 if unknown."""
    try:
        _, resident, shared, *_ = _MEMORY_FILE.read_bytes().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def measure(value: Any) -> int:
    """Roughly how many characters ``value`` has when written out.

    Raises:
        TemplateLimitExceeded: More than the limit. The walk ends there, so a small structure that
            contains another many times over costs no more either.
    """
    total = 0
    pending = [value]
    while pending:
        item = pending.pop()
        total += _own_size(item)
        check_length(total)
        if isinstance(item, dict):
            pending += item.keys()
            pending += item.values()
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending += item
    return total


def _own_size(item: Any) -> int:
    if isinstance(item, (str, bytes)):
        return len(item) + 2
    if isinstance(item, int):
        return item.bit_length() // 3 + 2
    return 2

"""Bounds on running a chat template: wall-clock time, memory and length of text.

A template is a program that came with a model file. It runs in a thread of its own while the caller
watches: over a limit the thread gets an asynchronous exception, which can reach no other thread, so
none can arrive late where nobody expects it. Python delivers it between two bytecodes; the sandbox
(``sandbox.py``) therefore keeps every single C call short.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from server.errors import ConversationError

TIME_LIMIT = 2.0
"""Seconds one compilation or render may take."""

GRACE = 0.5
"""Seconds a template has to stop, once told to, before it counts as stuck."""

MEMORY_LIMIT = 512 * 2**20
"""Bytes of private memory the process may gain during one render."""

TEXT_ALLOWANCE = 256 * 1024
TEXT_FACTOR = 8

_POLL = 0.02
_MEMORY_FILE = Path("/proc/self/statm")

T = TypeVar("T")


class TemplateLimitExceeded(ConversationError):
    """The model's chat template ran too long, or made too much."""


class _Abort(SystemExit):
    """Ends a template's thread. The interpreter ends a thread by SystemExit without a word."""


class _Budget(threading.local):
    text = TEXT_ALLOWANCE


_budget = _Budget()
_stuck_handler: Callable[[], None] = lambda: None  # noqa: E731


def on_stuck(handler: Callable[[], None]) -> None:
    """Have ``handler`` called when a template does not stop; it should end the process soon."""
    global _stuck_handler  # noqa: PLW0603
    _stuck_handler = handler


def text_limit(input_size: int) -> int:
    """How long, in characters, any text of a render with so many characters of input may be."""
    return TEXT_FACTOR * input_size + TEXT_ALLOWANCE


def check_length(length: int) -> None:
    """Refuse a text (or container) of more than the current render's limit, before it is made.

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
        TemplateLimitExceeded: It took too long or too much memory. Where it would not even stop
            then, the handler given to `on_stuck` has been called.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        _budget.text = text
        try:
            results.append(work())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="chat template", daemon=True)
    memory_limit = _private_memory() + MEMORY_LIMIT
    deadline = time.monotonic() + TIME_LIMIT
    thread.start()
    thread.join(_POLL)
    while thread.is_alive():
        if time.monotonic() > deadline:
            _stop(thread)
            raise TemplateLimitExceeded(
                f"The model's chat template did not finish within {TIME_LIMIT:g} seconds."
            )
        if _private_memory() > memory_limit:
            _stop(thread)
            raise TemplateLimitExceeded(
                f"The model's chat template takes more than {MEMORY_LIMIT >> 20} MiB of memory."
            )
        thread.join(_POLL)
    if errors:
        raise errors[0]
    return results[0]


def _stop(thread: threading.Thread) -> None:
    """Abort the thread; again and again, as an exception inside a finaliser is lost."""
    deadline = time.monotonic() + GRACE
    while thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Abort)
        )
        thread.join(_POLL)
        if time.monotonic() > deadline:
            _stuck_handler()
            return


def _private_memory() -> int:
    """Resident bytes that no file backs; a model's mapped weights do not count. 0 if unknown."""
    try:
        _, resident, shared, *_ = _MEMORY_FILE.read_bytes().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def measure(value: Any) -> int:
    """About how many characters ``value`` has when written out; a bound, not exact.

    Raises:
        TemplateLimitExceeded: More than the limit. The walk ends there, so that a small structure
            that holds itself many times over costs no more than that either.
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

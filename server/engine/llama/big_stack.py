"""Calls that recurse more deeply than a thread's usual stack allows.

Pre-tokenizers that fall back to std::regex recurse once per character: one megabyte of the same
letter overflows a thread's default stack.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# A choice; it must suffice for the longest prompt. The system allocates stack pages when they are
# touched.
_BYTES = 1 << 30
_size_lock = threading.Lock()


def with_big_stack(call: Callable[[], T]) -> T:
    """The result of ``call``, run on a thread whose stack regex recursion cannot exhaust."""
    result: list[T] = []
    with _size_lock:
        previous = threading.stack_size(_BYTES)
        try:
            thread = threading.Thread(target=lambda: result.append(call()))
            thread.start()
        finally:
            threading.stack_size(previous)
    thread.join()
    return result[0]

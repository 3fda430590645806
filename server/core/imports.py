"""Importing much at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """No garbage collection meanwhile.

    What modules define stays, so looking for cycles in it takes a tenth of an import for nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

"""Memory that llama.cpp clears, like that of KV cells, is taken once it is used."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_size_t, c_uint8, c_void_p

import numpy as np
import numpy.typing as npt
import pytest

from tests.unit.engine.ggml import OF_KERNELS, call

pytestmark = OF_KERNELS

# Neither is a whole number of pages; the smaller one is simply written.
SMALL, LARGE = 5_003, (8 << 20) + 5_003
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def buffer(size: int) -> Iterator[tuple[c_void_p, npt.NDArray[np.uint8]]]:
    """A buffer of the processor and its bytes."""
    kind = c_void_p(call("ggml_backend_cpu_buffer_type", c_void_p))
    made = c_void_p(call("ggml_backend_buft_alloc_buffer", c_void_p, kind, c_size_t(size)))
    base = call("ggml_backend_buffer_get_base", c_void_p, made)
    yield made, np.ctypeslib.as_array((c_uint8 * size).from_address(base))
    call("ggml_backend_buffer_free", None, made)


def pages_in_memory(contents: npt.NDArray[np.uint8]) -> int:
    """How many of the pages that lie wholly in ``contents`` take memory."""
    start = -(-contents.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = (contents.ctypes.data + contents.nbytes - start) // mmap.PAGESIZE
    found = (c_uint8 * pages)()
    assert _libc.mincore(c_void_p(start), c_size_t(pages * mmap.PAGESIZE), found) == 0
    return sum(each & 1 for each in found)


def test_cleared_memory_is_taken_once_it_is_written() -> None:
    with buffer(LARGE) as (made, contents):
        contents[:] = 1
        assert pages_in_memory(contents) > 0
        call("ggml_backend_buffer_clear", None, made, c_uint8(0))
        assert pages_in_memory(contents) == 0
        contents[LARGE // 2] = 1
        assert pages_in_memory(contents) > 0


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("value", [0, 7])
def test_every_byte_is_cleared(size: int, value: int) -> None:
    with buffer(size) as (made, contents):
        contents[:] = 1
        call("ggml_backend_buffer_clear", None, made, c_uint8(value))
        assert (contents == value).all()

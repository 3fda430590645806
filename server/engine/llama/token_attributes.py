"""The attributes of a vocabulary's tokens, all read at once."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from server.engine.llama.library import kernels_function

# Of kernels/each.cpp.
_each = kernels_function("dragoman_each")


def token_attributes(vocabulary: Any, size: int) -> NDArray[np.int32]:
    """The bits of ``llama_token_attr`` of each of ``size`` tokens.

    ``vocabulary`` is a llama_vocab pointer. Without our kernels 262k tokens take 0.1 s.
    """
    if _each is None:
        ask = llama_cpp.llama_vocab_get_attr
        return np.fromiter((ask(vocabulary, token) for token in range(size)), np.int32, size)
    library = llama_cpp.llama_cpp._lib  # noqa: SLF001 - it asks for the address
    ask = ctypes.cast(library.llama_vocab_get_attr, ctypes.c_void_p)
    found = np.empty(size, np.int32)
    answers = found.ctypes.data_as(ctypes.c_void_p)
    _each(ask, ctypes.c_void_p(vocabulary), ctypes.c_int32(size), answers)
    return found

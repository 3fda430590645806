"""What our kernels left to other code, whose rounding depends on what else is computed."""

from __future__ import annotations

import ctypes

from llama_cpp import _ggml

from server.engine.llama.library import kernels_function

# Of kernels/extension.cpp.
_take_declined = kernels_function("dragoman_declined")
if _take_declined is not None:
    _take_declined.restype = ctypes.c_char_p


def take_declined() -> str | None:
    """The other code that took part in this thread's computations since the last call, in words.

    They name the first operation that our kernels left to it, with its weights and their format.
    None: our kernels computed everything whose rounding could depend on other rows of a batch or on
    where cells lie.
    """
    if _take_declined is None:
        return "llama.cpp is here without dragoman's kernels"
    if _ggml.libggml.ggml_backend_dev_count() > 1:
        return "other devices than the processor compute, too"
    declined = _take_declined()
    if declined is None:
        return None
    return f"llama.cpp's own code computes {declined.decode('utf-8', 'replace')}"

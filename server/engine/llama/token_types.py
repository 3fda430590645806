"""BERT's token types, which tell the two texts of a pair apart.

llama.cpp's batches carry no token types, and its graphs add the first type's embedding to every
token. They also take embeddings in place of tokens, and add the same to these. So a token of the
second type is given as its own embedding plus the difference of the two types.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import _ggml
from numpy.typing import NDArray

from server.engine.llama.library import LoadError

_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _TypeTraits(ctypes.Structure):
    """ggml_type_traits of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block_elements", ctypes.c_int64),
        ("block_elements_interleaved", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float", ctypes.c_void_p),
    )


# libggml is linked with ggml's base library, whose symbols are found through it.
_get_type_traits = _ggml.libggml["ggml_get_type_traits"]
_get_type_traits.argtypes = [ctypes.c_int]
_get_type_traits.restype = ctypes.POINTER(_TypeTraits)


class StoredRows:
    """The rows of a matrix as they lie in a model file.

    Args:
        data: The bytes of the rows, shape (rows, bytes of a row).
        width: Numbers in a row.
        ggml_type: How they are stored (``enum ggml_type``).
    """

    def __init__(self, data: NDArray[np.uint8], width: int, ggml_type: int) -> None:
        """Raises LoadError for a type that ggml does not turn into floats."""
        self._data, self._width = data, width
        self._to_float = None
        if ggml_type == llama_cpp.GGML_TYPE_F32:
            return
        traits = _get_type_traits(ggml_type)
        if not traits or not traits[0].to_float:
            raise LoadError(f"embeddings of ggml's type {ggml_type} cannot be read")
        self._to_float = _TO_FLOAT(traits[0].to_float)

    def __len__(self) -> int:
        return len(self._data)

    def read(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        """The rows of these numbers, shape (numbers, width)."""
        stored = self._data[numbers]
        rows = np.empty((len(numbers), self._width), np.float32)
        if self._to_float is None:
            rows[:] = stored.view("<f4")
            return rows
        self._to_float(stored.ctypes.data, rows.ctypes.data, rows.size)
        return rows


class TypedEmbeddings:
    """What a model reads for tokens of two types."""

    def __init__(self, tokens: StoredRows, types: StoredRows) -> None:
        """``tokens`` has the embeddings of the vocabulary, ``types`` those of two types or more."""
        self._tokens = tokens
        first, second = types.read(np.array([0, 1]))
        self._difference = second - first

    def rows(self, tokens: NDArray[Any], are_second: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What stands for ``tokens`` in a batch, shape (tokens, width)."""
        rows = self._tokens.read(tokens)
        rows[are_second] += self._difference
        return rows

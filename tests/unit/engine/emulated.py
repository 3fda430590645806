"""Operations of ggml, computed by a program for another processor under emulation.

`make test-aarch64` (tests/aarch64/run.sh) sets `DRAGOMAN_EMULATED_GGML` to the command.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import struct
import subprocess
from collections.abc import Mapping
from ctypes import c_char, c_int, c_int32, c_int64, c_size_t, c_void_p

import numpy as np
import numpy.typing as npt


class _Tensor(ctypes.Structure):
    """``ggml_tensor``, the same on all processors of 64 bits."""

    _fields_ = (
        ("type", c_int),
        ("buffer", c_void_p),
        ("ne", c_int64 * 4),
        ("nb", c_size_t * 4),
        ("op", c_int),
        ("op_params", c_int32 * 16),
        ("flags", c_int32),
        ("src", c_void_p * 10),
        ("view_src", c_void_p),
        ("view_offs", c_size_t),
        ("data", c_void_p),
        ("name", c_char * 64),
        ("extra", c_void_p),
        ("padding", c_char * 8),
    )


class EmulatedGgml:
    """The program of tests/aarch64/operations.cpp, which says how they talk."""

    def __init__(self, command: str) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(shlex.split(command), stdin=pipe, stdout=pipe)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.buffer_types = self._output.readline().decode().split()

    def compute(
        self, result: int, contents: Mapping[int, npt.NDArray[np.generic]], threads: int
    ) -> npt.NDArray[np.float32]:
        """The numbers of the tensor at ``result``, all in one dimension.

        ``contents`` are those of tensors that are neither views nor computed, by their addresses.
        """
        tensors = _order(result)
        places = {address: place for place, address in enumerate(tensors, 1)}
        self._input.write(struct.pack("<II", threads, len(tensors)))
        for address in tensors:
            tensor = _Tensor.from_buffer_copy(_Tensor.from_address(address))
            tensor.buffer = tensor.data = None
            tensor.src[:] = [source and places[source] for source in tensor.src]
            tensor.view_src = tensor.view_src and places[tensor.view_src]
            self._input.write(bytes(tensor))
            if address in contents:
                self._input.write(contents[address].tobytes())
        self._input.flush()
        count = int(np.prod(_Tensor.from_address(result).ne[:]))
        return np.frombuffer(self._output.read(4 * count), np.float32)


def _order(result: int) -> list[int]:
    """The tensor at ``result`` behind all that it is computed from."""
    found: dict[int, None] = {}

    def visit(address: int) -> None:
        tensor = _Tensor.from_address(address)
        for other in (*tensor.src, tensor.view_src):
            if other and other not in found:
                visit(other)
        found[address] = None

    visit(result)
    return list(found)


@functools.cache
def emulated_ggml() -> EmulatedGgml | None:
    """The program to test, if it is not the library of this process."""
    command = os.environ.get("DRAGOMAN_EMULATED_GGML")
    return EmulatedGgml(command) if command else None

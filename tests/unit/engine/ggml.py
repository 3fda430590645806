"""ggml's C interface, for tests of single operations in llama.cpp's library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from llama_cpp import _ggml

from tests.unit.engine.emulated import emulated_ggml
from tests.unit.engine.processor import has_kernels

# In the process tier for their time, and since they run the compiled library.
OF_KERNELS = [
    pytest.mark.process,
    pytest.mark.skipif(not has_kernels(), reason="needs Linux on a processor with kernels"),
]


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


def call(name: str, returns: type | None, *arguments: object) -> int:
    """Call ggml's function ``name`` with ctypes objects."""
    function = _ggml.libggml[name]
    function.restype = returns
    result: int = function(*arguments)
    return result


def quantize(weights: npt.NDArray[np.float32], kind: GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    """``weights``, shape (rows, columns), in the format ``kind``: shape (rows, bytes)."""
    rows, columns = weights.shape
    numbers, size = GGML_QUANT_SIZES[kind]
    source = np.ascontiguousarray(weights, np.float32)
    result = np.zeros((rows, columns // numbers * size), np.uint8)
    importance = np.ones(columns, np.float32)
    written = call(
        "ggml_quantize_chunk",
        c_size_t,
        c_int(kind),
        source.ctypes.data_as(c_void_p),
        result.ctypes.data_as(c_void_p),
        *(c_int64(0), c_int64(rows), c_int64(columns)),
        importance.ctypes.data_as(c_void_p),
    )
    assert written == result.nbytes
    return result


def buffer_types() -> list[str]:
    """The types of buffers that the CPU backend has besides its own, ours among them."""
    emulated = emulated_ggml()
    if emulated:
        return emulated.buffer_types
    device = c_void_p(call("ggml_backend_dev_by_type", c_void_p, c_int(0)))
    registry = c_void_p(call("ggml_backend_dev_backend_reg", c_void_p, device))
    name = c_char_p(b"ggml_backend_dev_get_extra_bufts")
    address = call("ggml_backend_reg_get_proc_address", c_void_p, registry, name)
    names = []
    for kind in ctypes.CFUNCTYPE(ctypes.POINTER(c_void_p), c_void_p)(address)(device):
        if not kind:
            break
        name = c_char_p(call("ggml_backend_buft_name", c_void_p, c_void_p(kind)))
        names.append((name.value or b"").decode())
    return names


class _Plan(ctypes.Structure):
    """ggml_cplan."""

    _fields_ = (
        ("work_size", c_size_t),
        ("work_data", c_void_p),
        ("threads", c_int),
        ("threadpool", c_void_p),
        ("abort", c_void_p),
        ("abort_data", c_void_p),
        ("use_ref", c_bool),
    )


class Graph:
    """One operation on tensors, computed by ggml's CPU backend through its C interface."""

    def __init__(self, threads: int = 2) -> None:
        memory = _InitParams(1 << 20, None, True)
        self.context = c_void_p(call("ggml_init", c_void_p, memory))
        self._backend = c_void_p(call("ggml_backend_cpu_init", c_void_p))
        self._threads = threads
        call("ggml_backend_cpu_set_n_threads", None, self._backend, c_int(threads))
        self._data: list[tuple[c_void_p, npt.NDArray[np.generic]]] = []
        self._buffers: list[c_void_p] = []

    def tensor(
        self, kind: GGMLQuantizationType, shape: tuple[int, ...], data: npt.NDArray[np.generic]
    ) -> c_void_p:
        """A tensor of ``shape`` in numpy's order, innermost dimension last."""
        sizes = (c_int64 * len(shape))(*reversed(shape))
        arguments = c_int(kind), c_int(len(shape)), sizes
        tensor = c_void_p(call("ggml_new_tensor", c_void_p, self.context, *arguments))
        self._data.append((tensor, np.ascontiguousarray(data)))
        return tensor

    def place(self, tensor: c_void_p, address: int, size: int) -> None:
        """Place ``tensor``, the one made last, in the ``size`` bytes at ``address``.

        Under emulation, contents always lie before memory that nobody may read.
        """
        if emulated_ggml():
            return
        self._data.pop()
        name = "ggml_backend_cpu_buffer_from_ptr"
        self._buffers.append(c_void_p(call(name, c_void_p, c_void_p(address), c_size_t(size))))
        placed = self._buffers[-1], tensor, c_void_p(address)
        assert call("ggml_backend_tensor_alloc", c_int, *placed) == 0

    @contextmanager
    def built(self, result: c_void_p) -> Iterator[Callable[[], None]]:
        """A function that computes ``result``; frees the graph at the end."""
        graph = c_void_p(call("ggml_new_graph", c_void_p, self.context))
        call("ggml_build_forward_expand", None, graph, result)
        allocate = "ggml_backend_alloc_ctx_tensors"
        self._buffers.append(c_void_p(call(allocate, c_void_p, self.context, self._backend)))
        for tensor, data in self._data:
            source = data.ctypes.data_as(c_void_p), c_size_t(0), c_size_t(data.nbytes)
            call("ggml_backend_tensor_set", None, tensor, *source)

        def run() -> None:
            assert call("ggml_backend_graph_compute", c_int, self._backend, graph) == 0

        yield run
        self._free()

    def compute(self, result: c_void_p, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Compute ``result`` and free the graph."""
        emulated = emulated_ggml()
        if emulated:
            contents = {tensor.value or 0: data for tensor, data in self._data}
            numbers = emulated.compute(result.value or 0, contents, self._threads)
            self._free()
            return numbers.reshape(shape)
        values = np.empty(shape, np.float32)
        with self.built(result) as run:
            run()
            target = values.ctypes.data_as(c_void_p), c_size_t(0), c_size_t(values.nbytes)
            call("ggml_backend_tensor_get", None, result, *target)
        return values

    def work_size(self, result: c_void_p) -> int:
        """The bytes of memory in which threads compute ``result``; frees the graph."""
        graph = c_void_p(call("ggml_new_graph", c_void_p, self.context))
        call("ggml_build_forward_expand", None, graph, result)
        plan = _ggml.libggml["ggml_graph_plan"]
        plan.restype = _Plan
        size: int = plan(graph, c_int(self._threads), c_void_p(None)).work_size
        self._free()
        return size

    def _free(self) -> None:
        for buffer in self._buffers:
            call("ggml_backend_buffer_free", None, buffer)
        call("ggml_backend_free", None, self._backend)
        call("ggml_free", None, self.context)

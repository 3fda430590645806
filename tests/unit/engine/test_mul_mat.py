"""The matrix products that llama.cpp is compiled with, against exact ones."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, quants
from llama_cpp import _ggml

FORMATS = [
    GGMLQuantizationType.Q4_0,
    GGMLQuantizationType.Q4_1,
    GGMLQuantizationType.Q5_0,
    GGMLQuantizationType.Q5_1,
    GGMLQuantizationType.Q8_0,
]
BLOCK = 32
# As many tokens as the kernel multiplies at once, and some more.
MANY = 64 + 7
NAME = b"dragoman_mul_mat"


def _has_vnni() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_vnni" in cpuinfo.read_text().split()


pytestmark = pytest.mark.skipif(
    not _has_vnni(), reason="needs an x86 processor with AVX-512 VNNI, on Linux"
)


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


def _call(name: str, returns: type | None, *arguments: object) -> int:
    """The result of ggml's function ``name``; pointers and integers as ctypes objects."""
    function = _ggml.libggml[name]
    function.restype = returns
    result: int = function(*arguments)
    return result


def _quantized(activations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """What is left of ``activations`` in 8 bits with a scale for each block, as llama.cpp does."""
    blocks = activations.reshape(len(activations), -1, BLOCK)
    scales = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    rounded = np.rint(blocks / np.where(scales > 0, scales, 1)) * scales
    result: npt.NDArray[np.float64] = rounded.reshape(activations.shape).astype(np.float64)
    return result


def _product(
    weights: npt.NDArray[np.uint8], kind: GGMLQuantizationType, activations: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """What ggml's processor backend makes of the two with two threads: (tokens, rows)."""
    tokens, columns = activations.shape
    result = np.empty((tokens, len(weights)), np.float32)
    context = c_void_p(_call("ggml_init", c_void_p, _InitParams(1 << 20, None, True)))
    backend = c_void_p(_call("ggml_backend_cpu_init", c_void_p))
    _call("ggml_backend_cpu_set_n_threads", None, backend, c_int(2))

    def tensor(kind: int, rows: int) -> c_void_p:
        sizes = c_int64(columns), c_int64(rows)
        return c_void_p(_call("ggml_new_tensor_2d", c_void_p, context, c_int(kind), *sizes))

    matrix = tensor(kind, len(weights))
    vectors = tensor(GGMLQuantizationType.F32, tokens)
    product = c_void_p(_call("ggml_mul_mat", c_void_p, context, matrix, vectors))
    graph = c_void_p(_call("ggml_new_graph", c_void_p, context))
    _call("ggml_build_forward_expand", None, graph, product)
    buffer = c_void_p(_call("ggml_backend_alloc_ctx_tensors", c_void_p, context, backend))
    for where, what in ((matrix, weights), (vectors, activations)):
        data = what.ctypes.data_as(c_void_p), c_size_t(0), c_size_t(what.nbytes)
        _call("ggml_backend_tensor_set", None, where, *data)
    assert _call("ggml_backend_graph_compute", c_int, backend, graph) == 0
    data = result.ctypes.data_as(c_void_p), c_size_t(0), c_size_t(result.nbytes)
    _call("ggml_backend_tensor_get", None, product, *data)
    _call("ggml_backend_buffer_free", None, buffer)
    _call("ggml_backend_free", None, backend)
    _call("ggml_free", None, context)
    return result


def test_llama_cpp_was_compiled_with_it() -> None:
    device = c_void_p(_call("ggml_backend_dev_by_type", c_void_p, c_int(0)))
    registry = c_void_p(_call("ggml_backend_dev_backend_reg", c_void_p, device))
    get_types = ctypes.CFUNCTYPE(ctypes.POINTER(c_void_p), c_void_p)(
        _call(
            "ggml_backend_reg_get_proc_address",
            c_void_p,
            registry,
            c_char_p(b"ggml_backend_dev_get_extra_bufts"),
        )
    )(device)
    names: list[object] = []
    for kind in get_types:
        if not kind:
            break
        names.append(_call("ggml_backend_buft_name", c_char_p, c_void_p(kind)))
    assert NAME in names


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("tokens", [1, 2, MANY])
def test_a_product_is_exact_but_for_the_quantized_activations(
    kind: GGMLQuantizationType, tokens: int
) -> None:
    rng = np.random.default_rng(tokens)
    weights = quants.quantize(rng.normal(0.3, 1, (48, 5 * BLOCK)).astype(np.float32), kind)
    activations = rng.normal(size=(tokens, 5 * BLOCK)).astype(np.float32)
    activations[0, :BLOCK] = 0
    exact = _quantized(activations) @ quants.dequantize(weights, kind).T.astype(np.float64)
    # llama.cpp's own products are off by 0.01 here, since it rounds scales to half precision.
    assert np.abs(_product(weights, kind, activations) - exact).max() < 1e-4


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_a_token_gets_the_same_alone_and_beside_others(kind: GGMLQuantizationType) -> None:
    rng = np.random.default_rng(0)
    weights = quants.quantize(rng.normal(size=(32, 3 * BLOCK)).astype(np.float32), kind)
    activations = rng.normal(size=(MANY, 3 * BLOCK)).astype(np.float32)
    together = _product(weights, kind, activations)
    alone = [_product(weights, kind, activations[i : i + 1])[0] for i in range(MANY)]
    np.testing.assert_array_equal(together, alone)


def test_rows_that_do_not_fill_a_strip_are_left_to_llama_cpp() -> None:
    kind = GGMLQuantizationType.Q8_0
    rng = np.random.default_rng(0)
    weights = quants.quantize(rng.normal(size=(20, BLOCK)).astype(np.float32), kind)
    activations = rng.normal(size=(3, BLOCK)).astype(np.float32)
    exact = _quantized(activations) @ quants.dequantize(weights, kind).T.astype(np.float64)
    assert np.abs(_product(weights, kind, activations) - exact).max() < 0.05

"""Our kernels in llama.cpp's library, compared with exact results."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, quants
from llama_cpp import _ggml

from tests.unit.engine.processor import has_feature

FORMATS = [
    GGMLQuantizationType.Q4_0,
    GGMLQuantizationType.Q4_1,
    GGMLQuantizationType.Q5_0,
    GGMLQuantizationType.Q5_1,
    GGMLQuantizationType.Q8_0,
]
BLOCK_SIZE = 32
# More tokens than one tile of either kernel.
MANY = 64 + 7
# Odd multiples of 8 do not fill AVX-512's registers; the AVX2 kernels compute them there.
ROWS = [48, 40]
HEAD_DIMS = [64, 24]

# In the process tier for its time, and since it runs the compiled library.
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        not has_feature("avx2"), reason="needs an x86 processor with AVX2, on Linux"
    ),
]


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


def _call(name: str, returns: type | None, *arguments: object) -> int:
    """Call ggml's function ``name`` with ctypes objects."""
    function = _ggml.libggml[name]
    function.restype = returns
    result: int = function(*arguments)
    return result


def _quantized(activations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """``activations`` after quantization to 8 bits with one scale per block, as in llama.cpp."""
    blocks = activations.reshape(len(activations), -1, BLOCK_SIZE)
    scales = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    rounded = np.rint(blocks / np.where(scales > 0, scales, 1)) * scales
    result: npt.NDArray[np.float64] = rounded.reshape(activations.shape).astype(np.float64)
    return result


class _Graph:
    """One operation on tensors, computed by ggml's CPU backend through its C interface."""

    def __init__(self, threads: int = 2) -> None:
        memory = _InitParams(1 << 20, None, True)
        self.context = c_void_p(_call("ggml_init", c_void_p, memory))
        self._backend = c_void_p(_call("ggml_backend_cpu_init", c_void_p))
        _call("ggml_backend_cpu_set_n_threads", None, self._backend, c_int(threads))
        self._data: list[tuple[c_void_p, npt.NDArray[np.generic]]] = []
        self._buffers: list[c_void_p] = []

    def tensor(
        self, kind: GGMLQuantizationType, shape: tuple[int, ...], data: npt.NDArray[np.generic]
    ) -> c_void_p:
        """A tensor of ``shape`` in numpy's order, innermost dimension last."""
        sizes = (c_int64 * len(shape))(*reversed(shape))
        arguments = c_int(kind), c_int(len(shape)), sizes
        tensor = c_void_p(_call("ggml_new_tensor", c_void_p, self.context, *arguments))
        self._data.append((tensor, np.ascontiguousarray(data)))
        return tensor

    def place(self, tensor: c_void_p, address: int, size: int) -> None:
        """Place ``tensor``, the one made last, in the ``size`` bytes at ``address``."""
        self._data.pop()
        name = "ggml_backend_cpu_buffer_from_ptr"
        self._buffers.append(c_void_p(_call(name, c_void_p, c_void_p(address), c_size_t(size))))
        placed = self._buffers[-1], tensor, c_void_p(address)
        assert _call("ggml_backend_tensor_alloc", c_int, *placed) == 0

    def compute(self, result: c_void_p, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Compute ``result`` and free the graph."""
        graph = c_void_p(_call("ggml_new_graph", c_void_p, self.context))
        _call("ggml_build_forward_expand", None, graph, result)
        allocate = "ggml_backend_alloc_ctx_tensors"
        self._buffers.append(c_void_p(_call(allocate, c_void_p, self.context, self._backend)))
        for tensor, data in self._data:
            source = data.ctypes.data_as(c_void_p), c_size_t(0), c_size_t(data.nbytes)
            _call("ggml_backend_tensor_set", None, tensor, *source)
        assert _call("ggml_backend_graph_compute", c_int, self._backend, graph) == 0
        values = np.empty(shape, np.float32)
        target = values.ctypes.data_as(c_void_p), c_size_t(0), c_size_t(values.nbytes)
        _call("ggml_backend_tensor_get", None, result, *target)
        for buffer in self._buffers:
            _call("ggml_backend_buffer_free", None, buffer)
        _call("ggml_backend_free", None, self._backend)
        _call("ggml_free", None, self.context)
        return values


def _product(
    weights: npt.NDArray[np.uint8], kind: GGMLQuantizationType, activations: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """ggml's matrix product, shape (tokens, rows)."""
    tokens, columns = activations.shape
    graph = _Graph()
    matrix = graph.tensor(kind, (len(weights), columns), weights)
    vectors = graph.tensor(GGMLQuantizationType.F32, activations.shape, activations)
    product = c_void_p(_call("ggml_mul_mat", c_void_p, graph.context, matrix, vectors))
    return graph.compute(product, (tokens, len(weights)))


class Heads(NamedTuple):
    """Inputs of attention.

    Queries have shape (tokens, heads, head_dim), keys and values (cells, kv_heads, head_dim). The
    mask has shape (tokens, cells) and is minus infinity where a token must not see a cell.
    """

    queries: npt.NDArray[np.float32]
    keys: npt.NDArray[np.float16]
    values: npt.NDArray[np.float16]
    mask: npt.NDArray[np.float16]

    @classmethod
    def random(
        cls, visible: npt.NDArray[np.bool_], *, heads: int, kv_heads: int, head_dim: int = 64
    ) -> Heads:
        """Random numbers for the tokens and cells of ``visible``."""
        rng = np.random.default_rng(0)
        tokens, cells = visible.shape
        return cls(
            rng.normal(size=(tokens, heads, head_dim)).astype(np.float32),
            rng.normal(size=(cells, kv_heads, head_dim)).astype(np.float16),
            rng.normal(size=(cells, kv_heads, head_dim)).astype(np.float16),
            np.where(visible, 0, -np.inf).astype(np.float16),
        )

    def exact(self) -> npt.NDArray[np.float64]:
        """Attention in float64 with a scale of 1/8, shape (tokens, heads, head_dim)."""
        group = self.queries.shape[1] // self.keys.shape[1]
        keys = np.repeat(self.keys, group, axis=1).astype(np.float64)
        values = np.repeat(self.values, group, axis=1).astype(np.float64)
        scores = np.einsum("thd,chd->htc", self.queries, keys) / 8 + self.mask
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        result: npt.NDArray[np.float64] = np.einsum("htc,chd->thd", weights, values)
        return result

    def computed(self, threads: int = 2) -> npt.NDArray[np.float32]:
        """ggml's flash attention, with tensors laid out as in llama.cpp."""
        graph = _Graph(threads)

        def by_head(kind: GGMLQuantizationType, data: npt.NDArray[np.generic]) -> c_void_p:
            tensor = graph.tensor(kind, data.shape, data)
            order = c_int(0), c_int(2), c_int(1), c_int(3)
            return c_void_p(_call("ggml_permute", c_void_p, graph.context, tensor, *order))

        attention = _call(
            "ggml_flash_attn_ext",
            c_void_p,
            graph.context,
            by_head(GGMLQuantizationType.F32, self.queries),
            by_head(GGMLQuantizationType.F16, self.keys),
            by_head(GGMLQuantizationType.F16, self.values),
            graph.tensor(GGMLQuantizationType.F16, self.mask.shape, self.mask),
            *(c_float(1 / 8), c_float(0), c_float(0)),
        )
        return graph.compute(c_void_p(attention), self.queries.shape)


def test_llama_cpp_was_compiled_with_the_kernels() -> None:
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
    assert b"dragoman" in names


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("tokens", [1, 2, MANY])
@pytest.mark.parametrize("rows", ROWS)
def test_a_product_is_exact_but_for_the_quantized_activations(
    kind: GGMLQuantizationType, tokens: int, rows: int
) -> None:
    rng = np.random.default_rng(tokens)
    weights = quants.quantize(rng.normal(0.3, 1, (rows, 5 * BLOCK_SIZE)).astype(np.float32), kind)
    activations = rng.normal(size=(tokens, 5 * BLOCK_SIZE)).astype(np.float32)
    activations[0, :BLOCK_SIZE] = 0
    exact = _quantized(activations) @ quants.dequantize(weights, kind).T.astype(np.float64)
    # llama.cpp's own products are off by 0.01 here: it rounds scales to half precision.
    assert np.abs(_product(weights, kind, activations) - exact).max() < 1e-4


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("place", [0, 9, 31])
def test_a_nan_or_infinite_activation_is_not_hidden(kind: GGMLQuantizationType, place: int) -> None:
    rng = np.random.default_rng(0)
    weights = quants.quantize(rng.normal(size=(16, 2 * BLOCK_SIZE)).astype(np.float32), kind)
    activations = rng.normal(size=(3, 2 * BLOCK_SIZE)).astype(np.float32)
    activations[1, place] = np.nan
    activations[2, place] = np.inf
    product = _product(weights, kind, activations)
    assert np.isfinite(product[0]).all()
    assert np.isnan(product[1]).all()
    assert not np.isfinite(product[2]).any()


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_a_token_gets_the_same_alone_and_beside_others(kind: GGMLQuantizationType) -> None:
    rng = np.random.default_rng(0)
    weights = quants.quantize(rng.normal(size=(32, 3 * BLOCK_SIZE)).astype(np.float32), kind)
    activations = rng.normal(size=(MANY, 3 * BLOCK_SIZE)).astype(np.float32)
    together = _product(weights, kind, activations)
    alone = [_product(weights, kind, activations[i : i + 1])[0] for i in range(MANY)]
    np.testing.assert_array_equal(together, alone)


def test_rows_that_do_not_fill_a_panel_are_left_to_llama_cpp() -> None:
    kind = GGMLQuantizationType.Q8_0
    rng = np.random.default_rng(0)
    weights = quants.quantize(rng.normal(size=(20, BLOCK_SIZE)).astype(np.float32), kind)
    activations = rng.normal(size=(3, BLOCK_SIZE)).astype(np.float32)
    exact = _quantized(activations) @ quants.dequantize(weights, kind).T.astype(np.float64)
    assert np.abs(_product(weights, kind, activations) - exact).max() < 0.05


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_nothing_after_the_weights_is_read(kind: GGMLQuantizationType) -> None:
    rng = np.random.default_rng(0)
    weights = quants.quantize(rng.normal(size=(128, 512)).astype(np.float32), kind)
    activations = rng.normal(size=(2, 512)).astype(np.float32)
    assert weights.nbytes % mmap.PAGESIZE == 0
    # The weights end where an unreadable page begins.
    memory = mmap.mmap(-1, weights.nbytes + mmap.PAGESIZE)
    memory[: weights.nbytes] = weights.tobytes()
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None)
    forbidden = c_void_p(address + weights.nbytes), c_size_t(mmap.PAGESIZE)
    assert libc.mprotect(*forbidden, c_int(0)) == 0
    graph = _Graph()
    matrix = graph.tensor(kind, (128, 512), weights)
    graph.place(matrix, address, weights.nbytes)
    vectors = graph.tensor(GGMLQuantizationType.F32, activations.shape, activations)
    product = c_void_p(_call("ggml_mul_mat", c_void_p, graph.context, matrix, vectors))
    exact = _quantized(activations) @ quants.dequantize(weights, kind).T.astype(np.float64)
    result = graph.compute(product, (2, 128))
    assert libc.mprotect(*forbidden, c_int(mmap.PROT_READ)) == 0
    assert np.abs(result - exact).max() < 1e-3


def _causal(tokens: int, cells: int) -> npt.NDArray[np.bool_]:
    last = np.arange(cells - tokens, cells)[:, None]
    visible: npt.NDArray[np.bool_] = np.arange(cells) <= last
    return visible


def _side_by_side(tokens: int, cells: int) -> npt.NDArray[np.bool_]:
    """Sequences that share a prefix and then grew in turns; some cells belong to none of them."""
    cell = np.arange(cells)
    own = cell % tokens == np.arange(tokens)[:, None]
    visible: npt.NDArray[np.bool_] = (cell < cells // 3) | (own & (cell > cells // 2))
    return visible & (cell < cells - 20)


@pytest.mark.parametrize("visible", [_causal, _side_by_side], ids=lambda visible: visible.__name__)
@pytest.mark.parametrize(("tokens", "cells"), [(1, 256), (3, 512), (MANY, 1024)])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_attention_is_exact(
    visible: Callable[[int, int], npt.NDArray[np.bool_]],
    tokens: int,
    cells: int,
    threads: int,
    head_dim: int,
) -> None:
    heads = Heads.random(visible(tokens, cells), heads=6, kv_heads=2, head_dim=head_dim)
    # llama.cpp sums values in half precision and is off by more than 0.0001.
    assert np.abs(heads.computed(threads) - heads.exact()).max() < 1e-5


def test_attention_adds_the_mask_to_scores() -> None:
    heads = Heads.random(np.ones((2, 256), np.bool_), heads=2, kv_heads=2)
    heads.mask[:] = np.random.default_rng(1).normal(size=heads.mask.shape)
    assert np.abs(heads.computed() - heads.exact()).max() < 1e-5


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    heads = Heads.random(_causal(4, 512), heads=2, kv_heads=1)
    heads.queries[:] *= 300
    result = heads.computed()
    assert np.isfinite(result).all()
    assert np.abs(result - heads.exact()).max() < 1e-3


def test_a_token_that_sees_no_cell_gets_zeros() -> None:
    visible = _causal(3, 256)
    visible[1] = False
    heads = Heads.random(visible, heads=2, kv_heads=1)
    result = heads.computed()
    assert not result[1].any()
    others = Heads(heads.queries[[0, 2]], heads.keys, heads.values, heads.mask[[0, 2]])
    assert np.abs(result[[0, 2]] - others.exact()).max() < 1e-5


@pytest.mark.parametrize("tokens", [1, 4, MANY])
def test_the_content_of_a_masked_cell_changes_nothing(tokens: int) -> None:
    visible = _side_by_side(tokens + 1, 512)[:tokens]  # the last one is another request
    heads = Heads.random(visible, heads=2, kv_heads=1)
    before = heads.computed()
    masked = np.flatnonzero(~visible.any(axis=0))
    heads.keys[masked[::2]] = np.nan
    heads.values[masked] = np.inf
    np.testing.assert_array_equal(heads.computed(), before)


def test_nan_in_a_visible_cell_is_not_hidden() -> None:
    heads = Heads.random(_causal(1, 256), heads=1, kv_heads=1)
    heads.keys[17] = np.nan
    assert np.isnan(heads.computed()).any()


def test_attention_of_no_tokens_is_empty() -> None:
    heads = Heads.random(_causal(0, 256), heads=2, kv_heads=1)
    assert heads.computed().shape == (0, 2, 64)

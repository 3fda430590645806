"""Our matrix kernels in llama.cpp's library, compared with exact products."""

from __future__ import annotations

import ctypes
import mmap
from ctypes import c_int, c_int64, c_size_t, c_void_p

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from tests.unit.engine.ggml import OF_KERNELS, Graph, buffer_types, call, quantize

# Of each format: where its blocks have numbers in half precision, their scale and their minimum.
HALVES = {
    GGMLQuantizationType.Q4_0: [0],
    GGMLQuantizationType.Q4_1: [0, 2],
    GGMLQuantizationType.Q5_0: [0],
    GGMLQuantizationType.Q5_1: [0, 2],
    GGMLQuantizationType.Q8_0: [0],
    GGMLQuantizationType.Q4_K: [0, 2],
    GGMLQuantizationType.Q5_K: [0, 2],
    GGMLQuantizationType.Q6_K: [208],
    GGMLQuantizationType.Q3_K: [108],
    GGMLQuantizationType.Q2_K: [80, 82],
    GGMLQuantizationType.IQ4_XS: [0],
    GGMLQuantizationType.IQ4_NL: [0],
    GGMLQuantizationType.MXFP4: [],
}
PLAIN = [GGMLQuantizationType.F16, GGMLQuantizationType.BF16, GGMLQuantizationType.F32]
# More tokens than a tile has (AMX's are larger).
MANY = 128 + 7
# An odd multiple of 16 does not fill two of AVX-512's registers, and other numbers not one; with
# fewer than 16 the AVX2 kernels compute them there.
ROWS = [48, 43, 9]

pytestmark = [*OF_KERNELS]
of_every_format = pytest.mark.parametrize("kind", [*HALVES, *PLAIN], ids=lambda kind: kind.name)


def _block(kind: GGMLQuantizationType) -> int:
    """How many numbers of a row the kernels take together."""
    return 32 if kind in PLAIN else GGML_QUANT_SIZES[kind][0]


def _quantized(
    activations: npt.NDArray[np.float32], kind: GGMLQuantizationType
) -> npt.NDArray[np.float64]:
    """``activations`` after quantization to 8 bits with one scale per block, as in llama.cpp.

    Plain numbers are multiplied with the activations as they are.
    """
    if kind in PLAIN:
        return activations.astype(np.float64)
    blocks = activations.reshape(len(activations), -1, GGML_QUANT_SIZES[kind][0])
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    rounded = np.rint(blocks * (np.float32(127) / np.where(largest > 0, largest, 1)))
    scaled = rounded.astype(np.float64) * (largest / np.float32(127))
    result: npt.NDArray[np.float64] = scaled.reshape(activations.shape)
    return result


def _exact(
    weights: npt.NDArray[np.uint8], kind: GGMLQuantizationType, activations: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """The product but for the rounding of activations, shape (tokens, rows)."""
    numbers = quants.dequantize(weights, kind).astype(np.float64)
    result: npt.NDArray[np.float64] = _quantized(activations, kind) @ numbers.T
    return result


def _product(
    weights: npt.NDArray[np.uint8], kind: GGMLQuantizationType, activations: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """ggml's matrix product, shape (tokens, rows)."""
    tokens, columns = activations.shape
    graph = Graph()
    matrix = graph.tensor(kind, (len(weights), columns), weights)
    vectors = graph.tensor(GGMLQuantizationType.F32, activations.shape, activations)
    product = c_void_p(call("ggml_mul_mat", c_void_p, graph.context, matrix, vectors))
    return graph.compute(product, (tokens, len(weights)))


def _random(
    kind: GGMLQuantizationType, rows: int, tokens: int, blocks: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Weights in the format ``kind`` with a mean that is not 0, and activations."""
    rng = np.random.default_rng(rows + tokens)
    columns = blocks * _block(kind)
    weights = quantize(rng.normal(0.3, 1, (rows, columns)).astype(np.float32), kind)
    return weights, rng.normal(size=(tokens, columns)).astype(np.float32)


def test_llama_cpp_was_compiled_with_the_kernels() -> None:
    assert "dragoman" in buffer_types()


def test_llama_cpps_own_amx_code_is_left_out() -> None:
    assert "AMX" not in buffer_types()


@of_every_format
@pytest.mark.parametrize("tokens", [1, 2, MANY])
@pytest.mark.parametrize("rows", ROWS)
def test_a_product_is_exact_but_for_the_quantized_activations(
    kind: GGMLQuantizationType, tokens: int, rows: int
) -> None:
    weights, activations = _random(kind, rows, tokens, 5)
    activations[0, : _block(kind)] = 0
    # llama.cpp's own products in blocks of 32 are off by 0.01: it rounds scales to half precision.
    difference = _product(weights, kind, activations) - _exact(weights, kind, activations)
    assert np.abs(difference).max() < 2e-4


@of_every_format
def test_products_of_random_shapes_are_exact(kind: GGMLQuantizationType) -> None:
    rng = np.random.default_rng(int(kind))
    for _ in range(3):
        rows, tokens, blocks = rng.integers(8, 160), rng.integers(1, 513), rng.integers(1, 20)
        weights, activations = _random(kind, int(rows), int(tokens), int(blocks))
        difference = _product(weights, kind, activations) - _exact(weights, kind, activations)
        assert np.abs(difference).max() < 1e-3, (rows, tokens, blocks)


@of_every_format
@pytest.mark.parametrize("rows", ROWS)
def test_long_rows_give_a_few_tokens_the_same_alone_and_beside_others(
    kind: GGMLQuantizationType, rows: int
) -> None:
    """A few tokens read rows of four quarters of a matrix together, in blocks of 32 long ones."""
    weights, activations = _random(kind, rows, 8, 75)
    together = _product(weights, kind, activations)
    assert np.abs(together - _exact(weights, kind, activations)).max() < 2e-3
    for tokens in range(1, 8):
        np.testing.assert_array_equal(
            _product(weights, kind, activations[:tokens]), together[:tokens]
        )


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.name)
def test_plain_rows_may_be_an_odd_multiple_of_16(kind: GGMLQuantizationType) -> None:
    rng = np.random.default_rng(0)
    weights = quantize(rng.normal(size=(48, 80)).astype(np.float32), kind)
    activations = rng.normal(size=(MANY, 80)).astype(np.float32)
    difference = _product(weights, kind, activations) - _exact(weights, kind, activations)
    assert np.abs(difference).max() < 1e-4


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.name)
@pytest.mark.parametrize("tokens", [16, 17, 32, 33, 64, 65, 600])
def test_long_plain_rows_give_a_token_the_same_alone_and_beside_others(
    kind: GGMLQuantizationType, tokens: int
) -> None:
    weights, activations = _random(kind, 48, tokens, 19)
    together = _product(weights, kind, activations)
    for token in (0, tokens - 1):
        alone = _product(weights, kind, activations[token : token + 1])[0]
        np.testing.assert_array_equal(together[token], alone)


@pytest.mark.parametrize("kind", HALVES, ids=lambda kind: kind.name)
def test_no_weights_overflow_the_sums_of_a_product(kind: GGMLQuantizationType) -> None:
    rng = np.random.default_rng(0)
    numbers, size = GGML_QUANT_SIZES[kind]
    rows, blocks = 48, 3
    weights = rng.integers(0, 256, (rows, blocks, size), np.uint8)
    # Of scales and quants alike, all bits are set, or none, or the sign, or all but that.
    weights[:4] = np.array([0xFF, 0x00, 0x80, 0x7F])[:, None, None]
    for offset in HALVES[kind]:
        weights[:, :, offset : offset + 2] = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
    if kind == GGMLQuantizationType.MXFP4:
        weights[:, :, 0] = 118  # an exponent
    weights = weights.reshape(rows, -1)
    # So many that they fill tiles of AMX.
    signs = rng.integers(0, 2, (19, blocks * numbers)) * 2 - 1
    signs[0], signs[1] = 1, -1
    activations = signs.astype(np.float32)
    exact = _exact(weights, kind, activations)
    product = _product(weights, kind, activations)
    assert np.abs(product - exact).max() < 1e-5 * np.abs(exact).max()
    # Nor does a sum that a float would have to round differ for a token alone.
    for token in range(len(activations)):
        alone = _product(weights, kind, activations[token : token + 1])[0]
        np.testing.assert_array_equal(alone, product[token])


@of_every_format
def test_rows_of_activations_may_lie_apart(kind: GGMLQuantizationType) -> None:
    weights, activations = _random(kind, 32, 3, 4)
    used = activations.shape[1] // 2
    graph = Graph()
    matrix = graph.tensor(kind, (32, used), weights[:, : weights.shape[1] // 2])
    whole = graph.tensor(GGMLQuantizationType.F32, activations.shape, activations)
    sizes = c_int64(used), c_int64(3), c_size_t(4 * activations.shape[1]), c_size_t(4 * used)
    half = c_void_p(call("ggml_view_2d", c_void_p, graph.context, whole, *sizes))
    product = c_void_p(call("ggml_mul_mat", c_void_p, graph.context, matrix, half))
    exact = _exact(weights[:, : weights.shape[1] // 2], kind, activations[:, used:])
    assert np.abs(graph.compute(product, (3, 32)) - exact).max() < 1e-4


@of_every_format
@pytest.mark.parametrize("place", [0, 9, 31])
def test_a_nan_or_infinite_activation_is_not_hidden(kind: GGMLQuantizationType, place: int) -> None:
    weights, activations = _random(kind, 16, 3, 2)
    activations[1, place] = np.nan
    activations[2, place] = np.inf
    product = _product(weights, kind, activations)
    assert np.isfinite(product[0]).all()
    assert np.isnan(product[1]).all()
    assert not np.isfinite(product[2]).any()


@of_every_format
@pytest.mark.parametrize("factor", [np.inf, 1e-38, 1e-42])
def test_activations_that_cannot_be_quantized_give_the_same_alone_and_beside_others(
    kind: GGMLQuantizationType, factor: float
) -> None:
    """Infinite ones, and such that 127 / activation is infinite."""
    weights, activations = _random(kind, 48, 35, 3)
    activations[:, :9] *= factor
    activations[:, 9:] *= min(factor, 1)
    together = _product(weights, kind, activations)
    for i in (0, 17, 34):
        alone = _product(weights, kind, activations[i : i + 1])[0]
        np.testing.assert_array_equal(together[i], alone)
    assert factor == np.inf or np.abs(together).max() < 1e3 * factor


@of_every_format
@pytest.mark.parametrize("rows", ROWS)
def test_a_token_gets_the_same_alone_and_beside_others(
    kind: GGMLQuantizationType, rows: int
) -> None:
    weights, activations = _random(kind, rows, MANY, 3)
    together = _product(weights, kind, activations)
    for i in [*range(0, MANY, 9), 127, 128, MANY - 1]:
        alone = _product(weights, kind, activations[i : i + 1])[0]
        np.testing.assert_array_equal(together[i], alone)


@of_every_format
def test_however_few_others_there_are_a_token_gets_the_same(kind: GGMLQuantizationType) -> None:
    weights, activations = _random(kind, 48, 35, 17)
    alone = [_product(weights, kind, activations[i : i + 1])[0] for i in range(35)]
    for tokens in range(2, 36):
        together = _product(weights, kind, activations[:tokens])
        np.testing.assert_array_equal(together, alone[:tokens])


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q4_1", "Q8_0", "F16"])
def test_more_tokens_than_are_multiplied_at_once_change_nothing(kind: str) -> None:
    weights, activations = _random(GGMLQuantizationType[kind], 48, 512 + 17, 1)
    together = _product(weights, GGMLQuantizationType[kind], activations)
    for i in (0, 495, 511, 512, 528):
        alone = _product(weights, GGMLQuantizationType[kind], activations[i : i + 1])[0]
        np.testing.assert_array_equal(together[i], alone)


def _experts_product(
    weights: npt.NDArray[np.uint8],
    kind: GGMLQuantizationType,
    activations: npt.NDArray[np.float32],
    ids: npt.NDArray[np.int32],
) -> npt.NDArray[np.float32]:
    """ggml's product with chosen matrices, shape (tokens, used, rows).

    Weights have shape (experts, rows, bytes), activations (tokens, used or 1, columns), ids
    (tokens, used). The ids are a view of a wider tensor, as in llama.cpp.
    """
    (tokens, used), columns = ids.shape, activations.shape[-1]
    wide = np.concatenate([ids, np.full((tokens, 3), 10**6, np.int32)], axis=1)
    graph = Graph()
    matrices = graph.tensor(kind, (*weights.shape[:2], columns), weights)
    vectors = graph.tensor(GGMLQuantizationType.F32, activations.shape, activations)
    every = graph.tensor(GGMLQuantizationType.I32, wide.shape, wide)
    view = c_int64(used), c_int64(tokens), c_size_t(4 * (used + 3)), c_size_t(0)
    chosen = c_void_p(call("ggml_view_2d", c_void_p, graph.context, every, *view))
    operands = graph.context, matrices, vectors, chosen
    product = c_void_p(call("ggml_mul_mat_id", c_void_p, *operands))
    return graph.compute(product, (tokens, used, weights.shape[1]))


@of_every_format
@pytest.mark.parametrize("tokens", [1, 5, MANY])
@pytest.mark.parametrize("shared", [True, False], ids=["one_input", "an_input_each"])
def test_each_token_is_multiplied_with_the_experts_that_it_names(
    kind: GGMLQuantizationType, tokens: int, shared: bool
) -> None:
    experts, used, rows = 6, 3, 48
    rng = np.random.default_rng(tokens)
    flat, activations = _random(kind, experts * rows, tokens * (1 if shared else used), 2)
    weights = flat.reshape(experts, rows, -1)
    # Expert 4 is never chosen, expert 0 by every token.
    others = np.array([rng.permutation([1, 2, 3, 5])[: used - 1] for _ in range(tokens)])
    ids = np.concatenate([others, np.zeros((tokens, 1))], axis=1).astype(np.int32)
    inputs = activations.reshape(tokens, -1, activations.shape[-1])
    product = _experts_product(weights, kind, inputs, ids)
    for token in range(tokens):
        for slot in range(used):
            vector = inputs[token, slot % inputs.shape[1]][None]
            exact = _exact(weights[ids[token, slot]], kind, vector)[0]
            assert np.abs(product[token, slot] - exact).max() < 1e-4


@of_every_format
def test_a_token_gets_the_same_from_experts_alone_and_beside_others(
    kind: GGMLQuantizationType,
) -> None:
    flat, activations = _random(kind, 4 * 32, MANY, 2)
    weights, inputs = flat.reshape(4, 32, -1), activations[:, None]
    rng = np.random.default_rng(0)
    ids = np.array([rng.permutation(4)[:2] for _ in range(MANY)], np.int32)
    together = _experts_product(weights, kind, inputs, ids)
    for i in range(0, MANY, 9):
        alone = _experts_product(weights, kind, inputs[i : i + 1], ids[i : i + 1])[0]
        np.testing.assert_array_equal(together[i], alone)


def test_fewer_rows_than_a_panel_has_are_left_to_llama_cpp() -> None:
    weights, activations = _random(GGMLQuantizationType.Q8_0, 5, 3, 1)
    exact = _exact(weights, GGMLQuantizationType.Q8_0, activations)
    product = _product(weights, GGMLQuantizationType.Q8_0, activations)
    assert np.abs(product - exact).max() < 0.05


@of_every_format
@pytest.mark.parametrize(("tokens", "blocks"), [(2, 2), (1, 75), (1, 76)])
def test_nothing_after_the_weights_is_read(
    kind: GGMLQuantizationType, tokens: int, blocks: int
) -> None:
    weights, activations = _random(kind, 64, tokens, blocks)
    size = -(-weights.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    # The weights end where an unreadable page begins.
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    memory[size - weights.nbytes : size] = weights.tobytes()
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None)
    forbidden = c_void_p(address + size), c_size_t(mmap.PAGESIZE)
    assert libc.mprotect(*forbidden, c_int(0)) == 0
    graph = Graph()
    matrix = graph.tensor(kind, (64, activations.shape[1]), weights)
    graph.place(matrix, address + size - weights.nbytes, weights.nbytes)
    vectors = graph.tensor(GGMLQuantizationType.F32, activations.shape, activations)
    product = c_void_p(call("ggml_mul_mat", c_void_p, graph.context, matrix, vectors))
    result = graph.compute(product, (tokens, 64))
    assert libc.mprotect(*forbidden, c_int(mmap.PROT_READ)) == 0
    assert np.abs(result - _exact(weights, kind, activations)).max() < 1e-3

"""Rotations of quantized KV cells in llama.cpp's library, compared with exact products."""

from __future__ import annotations

from ctypes import c_int, c_void_p

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType

from tests.unit.engine.ggml import OF_KERNELS, Graph, call

pytestmark = [*OF_KERNELS]

# GGML_HINT_SRC0_IS_HADAMARD.
_IS_HADAMARD = 1
# Our kernels take all but the last.
SIZES = [64, 128, 256, 512]


def _hadamard(size: int) -> npt.NDArray[np.float64]:
    """Sylvester's matrix, orthonormal: shape (size, size)."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    orthonormal: npt.NDArray[np.float64] = matrix / np.sqrt(size)
    return orthonormal


def _rotated(numbers: npt.NDArray[np.float32], threads: int = 2) -> npt.NDArray[np.float32]:
    """ggml's rotation of each row of ``numbers``: of the same shape."""
    rows, size = numbers.shape
    graph = Graph(threads)
    matrix = _hadamard(size).astype(np.float32)
    rotation = graph.tensor(GGMLQuantizationType.F32, matrix.shape, matrix)
    vectors = graph.tensor(GGMLQuantizationType.F32, numbers.shape, numbers)
    product = c_void_p(call("ggml_mul_mat", c_void_p, graph.context, rotation, vectors))
    call("ggml_mul_mat_set_hint", None, product, c_int(_IS_HADAMARD))
    return graph.compute(product, (rows, size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rows", [1, 2, 7, 300])
def test_a_rotation_is_a_product_with_hadamards_matrix(size: int, rows: int) -> None:
    numbers = np.random.default_rng(rows).normal(0.5, 3, (rows, size)).astype(np.float32)
    exact = numbers.astype(np.float64) @ _hadamard(size)
    assert np.abs(_rotated(numbers) - exact).max() < 2e-5


@pytest.mark.parametrize("size", SIZES)
def test_a_rotation_depends_on_neither_neighbours_nor_threads(size: int) -> None:
    numbers = np.random.default_rng(1).normal(size=(9, size)).astype(np.float32)
    together = _rotated(numbers)
    np.testing.assert_array_equal(_rotated(numbers, threads=1), together)
    for row in range(len(numbers)):
        np.testing.assert_array_equal(_rotated(numbers[row : row + 1])[0], together[row])


@pytest.mark.parametrize("size", SIZES)
def test_a_rotation_adds_neighbours_first(size: int) -> None:
    """As llama.cpp's own does, so that cells on disk stay the same to the bit."""
    numbers = np.random.default_rng(2).normal(0, 5, (5, size)).astype(np.float32)
    sums = numbers * np.float32(1 / np.sqrt(np.float32(size)))
    distance = 1
    while distance < size:
        pairs = sums.reshape(5, -1, 2, distance)
        sums = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        distance *= 2
    np.testing.assert_array_equal(_rotated(numbers), sums.reshape(5, size))

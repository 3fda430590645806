"""Our kernel of flash attention in llama.cpp's library, compared with exact results."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float, c_int, c_void_p
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType

from tests.unit.engine.ggml import OF_KERNELS, Graph, call

# More tokens than one tile of either kernel.
MANY = 64 + 7
# Odd multiples of 8 do not fill AVX-512's registers; the AVX2 kernels compute them there.
HEAD_DIMS = [64, 24]

pytestmark = OF_KERNELS


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
        graph = Graph(threads)

        def by_head(kind: GGMLQuantizationType, data: npt.NDArray[np.generic]) -> c_void_p:
            tensor = graph.tensor(kind, data.shape, data)
            order = c_int(0), c_int(2), c_int(1), c_int(3)
            return c_void_p(call("ggml_permute", c_void_p, graph.context, tensor, *order))

        attention = call(
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

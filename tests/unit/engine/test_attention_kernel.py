"""Our kernel of flash attention in llama.cpp's library, compared with exact results."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float, c_int, c_void_p
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from tests.unit.engine.emulated import emulated_ggml
from tests.unit.engine.ggml import OF_KERNELS, Graph, call, quantize

# More tokens than one tile of either kernel.
MANY = 64 + 7
# Odd multiples of 8 do not fill AVX-512's registers; the AVX2 kernels compute them there. Odd
# multiples of 16 do not fill AMX's tiles.
HEAD_DIMS = [64, 24, 80, 256]
# Sums of weighted values are multiples of one unit (attention_sums.h). llama.cpp sums values in
# half precision and is off by 0.001 and more.
ROUNDING = 2e-4
F16, Q8_0, Q4_0 = (
    GGMLQuantizationType.F16,
    GGMLQuantizationType.Q8_0,
    GGMLQuantizationType.Q4_0,
)

pytestmark = OF_KERNELS
of_every_format = pytest.mark.parametrize("kind", [F16, Q8_0, Q4_0], ids=lambda kind: kind.name)


class Heads(NamedTuple):
    """Inputs of attention.

    Queries have shape (tokens, heads, head_dim), keys (cells, kv_heads, head_dim) and values
    (cells, kv_heads, value_dim). The mask has shape (tokens, cells) and is minus infinity where a
    token must not see a cell.
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

    def exact(
        self,
        kind: GGMLQuantizationType = F16,
        soft_cap: float = 0,
        slopes: npt.NDArray[np.float64] | float = 1,
        sinks: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Attention in float64 with a scale of 1/8, shape (tokens, heads, value_dim).

        ``slopes`` and ``sinks`` are those of each head.
        """
        group = self.queries.shape[1] // self.keys.shape[1]
        keys = np.repeat(_rounded(self.keys, kind), group, axis=1).astype(np.float64)
        values = np.repeat(_rounded(self.values, kind), group, axis=1).astype(np.float64)
        scores = np.einsum("thd,chd->htc", self.queries, keys) / 8
        if soft_cap:
            scores = np.tanh(scores / soft_cap) * soft_cap
        scores += np.reshape(slopes, (-1, 1, 1)) * self.mask.astype(np.float64)
        largest = scores.max(axis=-1, keepdims=True)
        if sinks is not None:
            largest = np.maximum(largest, sinks[:, None, None])
        weights = np.exp(scores - largest)
        total = weights.sum(axis=-1, keepdims=True)
        if sinks is not None:
            total += np.exp(sinks[:, None, None] - largest)
        result: npt.NDArray[np.float64] = np.einsum("htc,chd->thd", weights / total, values)
        return result

    def computed(
        self,
        threads: int = 2,
        kind: GGMLQuantizationType = F16,
        soft_cap: float = 0,
        largest_bias: float = 0,
        sinks: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """ggml's flash attention, with tensors laid out as in llama.cpp and cells of ``kind``."""
        graph = Graph(threads)
        return graph.compute(
            self.attention(graph, kind, soft_cap, largest_bias, sinks),
            (*self.queries.shape[:2], self.values.shape[-1]),
        )

    def attention(
        self,
        graph: Graph,
        kind: GGMLQuantizationType,
        soft_cap: float = 0,
        largest_bias: float = 0,
        sinks: npt.NDArray[np.float32] | None = None,
    ) -> c_void_p:
        """The operation in ``graph``."""

        def by_head(kind: GGMLQuantizationType, data: npt.NDArray[np.generic]) -> c_void_p:
            stored = data if kind in _PLAIN else _quantized(data.astype(np.float32), kind)
            tensor = graph.tensor(kind, data.shape, stored)
            order = c_int(0), c_int(2), c_int(1), c_int(3)
            return c_void_p(call("ggml_permute", c_void_p, graph.context, tensor, *order))

        attention = call(
            "ggml_flash_attn_ext",
            c_void_p,
            graph.context,
            by_head(GGMLQuantizationType.F32, self.queries),
            by_head(kind, self.keys),
            by_head(kind, self.values),
            graph.tensor(GGMLQuantizationType.F16, self.mask.shape, self.mask),
            *(c_float(1 / 8), c_float(largest_bias), c_float(soft_cap)),
        )
        if sinks is not None:
            tensor = graph.tensor(GGMLQuantizationType.F32, sinks.shape, sinks)
            call("ggml_flash_attn_ext_add_sinks", None, c_void_p(attention), tensor)
        return c_void_p(attention)


_PLAIN = (F16, GGMLQuantizationType.F32)


def _quantized(
    numbers: npt.NDArray[np.float32], kind: GGMLQuantizationType
) -> npt.NDArray[np.uint8]:
    return quantize(numbers.reshape(-1, numbers.shape[-1]), kind)


def _rounded(
    numbers: npt.NDArray[np.float16], kind: GGMLQuantizationType
) -> npt.NDArray[np.floating]:
    """``numbers`` as cells of ``kind`` hold them."""
    if kind == F16:
        return numbers
    stored = _quantized(numbers.astype(np.float32), kind)
    result: npt.NDArray[np.floating] = dequantize(stored, kind).reshape(numbers.shape)
    return result


def causal(tokens: int, cells: int) -> npt.NDArray[np.bool_]:
    last = np.arange(cells - tokens, cells)[:, None]
    visible: npt.NDArray[np.bool_] = np.arange(cells) <= last
    return visible


def _side_by_side(tokens: int, cells: int) -> npt.NDArray[np.bool_]:
    """Sequences that share a prefix and then grew in turns; some cells belong to none of them."""
    cell = np.arange(cells)
    own = cell % tokens == np.arange(tokens)[:, None]
    visible: npt.NDArray[np.bool_] = (cell < cells // 3) | (own & (cell > cells // 2))
    return visible & (cell < cells - 20)


@pytest.mark.parametrize("visible", [causal, _side_by_side], ids=lambda visible: visible.__name__)
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
    assert np.abs(heads.computed(threads) - heads.exact()).max() < ROUNDING


@of_every_format
@pytest.mark.parametrize(("key_dim", "value_dim"), [(192, 128), (64, 160), (96, 32)])
def test_values_may_be_shorter_or_longer_than_keys(
    kind: GGMLQuantizationType, key_dim: int, value_dim: int
) -> None:
    values = np.random.default_rng(3).normal(size=(512, 2, value_dim)).astype(np.float16)
    for tokens in (1, MANY):
        heads = Heads.random(causal(tokens, 512), heads=6, kv_heads=2, head_dim=key_dim)
        heads = heads._replace(values=values)
        assert np.abs(heads.computed(kind=kind) - heads.exact(kind)).max() < ROUNDING


@pytest.mark.parametrize("cells", [1, 7, 33, 107])
def test_there_may_be_any_number_of_cells(cells: int) -> None:
    heads = Heads.random(causal(min(cells, 5), cells), heads=2, kv_heads=1)
    assert np.abs(heads.computed() - heads.exact()).max() < ROUNDING


@pytest.mark.parametrize("head_dim", [32, 64])
def test_texts_are_read_in_both_directions_as_each_alone(head_dim: int) -> None:
    """Encoders have no cache: the cells are the tokens, of which each sees those of its text."""
    lengths = [10, 1, 23, 16, 40, 3, 64]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    together = Heads.random(owner[:, None] == owner, heads=6, kv_heads=6, head_dim=head_dim)
    result = together.computed(threads=3)
    assert np.abs(result - together.exact()).max() < ROUNDING
    for text in range(len(lengths)):
        own = owner == text
        alone = Heads(
            together.queries[own],
            together.keys[own],
            together.values[own],
            np.zeros((lengths[text], lengths[text]), np.float16),
        )
        np.testing.assert_array_equal(alone.computed(threads=1), result[own])


@pytest.mark.parametrize("group", [1, 5, 7, 20, 48])
def test_heads_share_keys_and_values_in_groups_of_any_size(group: int) -> None:
    for tokens in (1, 3, 13):
        visible = _side_by_side(tokens, 512)
        heads = Heads.random(visible, heads=group, kv_heads=1, head_dim=32)
        assert np.abs(heads.computed() - heads.exact()).max() < ROUNDING


@pytest.mark.parametrize("tokens", [1, 10])
def test_sums_over_many_cells_do_not_overflow(tokens: int) -> None:
    """Values close to a power of two, weights just below one; an overflow is off by far more."""
    heads = Heads.random(np.ones((tokens, 49_152), np.bool_), heads=1, kv_heads=1, head_dim=16)
    heads.queries[:] = 0
    heads.values[:] = np.random.default_rng(2).uniform(1.9, 1.999, heads.values.shape)
    heads.mask[:, 1:] = -3 * 2.0**-24
    assert np.abs(heads.computed(threads=1) - heads.exact()).max() < 0.02


@of_every_format
@pytest.mark.parametrize("tokens", [1, MANY])
@pytest.mark.parametrize("scale", [2.0**-9, 2.0**9])
def test_small_and_large_numbers_are_as_precise_as_others(
    kind: GGMLQuantizationType, tokens: int, scale: float
) -> None:
    heads = Heads.random(causal(tokens, 256), heads=6, kv_heads=2)
    heads.queries[:] /= scale
    heads.keys[:] *= scale
    heads.values[:] *= scale
    difference = heads.computed(kind=kind) - heads.exact(kind)
    assert np.abs(difference).max() < ROUNDING * scale


def test_attention_adds_the_mask_to_scores() -> None:
    heads = Heads.random(np.ones((2, 256), np.bool_), heads=2, kv_heads=2)
    heads.mask[:] = np.random.default_rng(1).normal(size=heads.mask.shape)
    assert np.abs(heads.computed() - heads.exact()).max() < ROUNDING


@pytest.mark.parametrize("kind", [Q8_0, Q4_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize("head_dim", [32, 64, 256])
def test_attention_over_quantized_cells_is_exact(kind: GGMLQuantizationType, head_dim: int) -> None:
    for tokens, threads in [(1, 1), (MANY, 3)]:
        visible = _side_by_side(tokens + 1, 512)[:tokens]
        heads = Heads.random(visible, heads=6, kv_heads=2, head_dim=head_dim)
        difference = heads.computed(threads, kind) - heads.exact(kind)
        assert np.abs(difference).max() < ROUNDING


def test_a_soft_cap_bounds_scores() -> None:
    heads = Heads.random(causal(5, 256), heads=4, kv_heads=2)
    heads.queries[:] *= 20
    difference = heads.computed(soft_cap=30) - heads.exact(soft_cap=30)
    assert np.abs(difference).max() < ROUNDING


def test_each_head_has_its_bias_by_distance() -> None:
    heads = Heads.random(np.ones((3, 256), np.bool_), heads=6, kv_heads=2)
    heads.mask[:] = -np.abs(np.arange(256) - np.array([[253], [254], [255]]))
    # ALiBi for four heads, and two between those of eight, as in llama.cpp.
    slopes = np.array([2.0 ** (-8 / 4 * i) for i in range(1, 5)] + [2.0**-1, 2.0**-3])
    difference = heads.computed(largest_bias=8) - heads.exact(slopes=slopes)
    assert np.abs(difference).max() < ROUNDING


def test_a_sink_takes_weight_from_the_cells() -> None:
    heads = Heads.random(causal(5, 256), heads=4, kv_heads=2)
    sinks = np.array([-3, 0, 2, 8], np.float32)
    difference = heads.computed(sinks=sinks) - heads.exact(sinks=sinks)
    assert np.abs(difference).max() < ROUNDING


@of_every_format
@pytest.mark.parametrize("head_dim", [64, 256])
def test_a_result_depends_on_nothing_but_the_cells_that_a_token_sees(
    kind: GGMLQuantizationType, head_dim: int
) -> None:
    """Not on their order and places, other tokens and their cells, or threads: to the bit."""
    rng = np.random.default_rng(5)
    alone = Heads.random(np.ones((1, 304), np.bool_), heads=6, kv_heads=2, head_dim=head_dim)
    alone.values[::7] *= 10
    expected = alone.computed(1, kind)
    for cells, tokens in [(304, 1), (512, 1), (1024, 5), (2048, MANY)]:
        others = Heads.random(
            rng.random((tokens, cells)) < 0.4, heads=6, kv_heads=2, head_dim=head_dim
        )
        others.values[:] *= rng.choice([0.1, 1, 100])
        places = rng.permutation(cells)[:304]
        others.queries[-1] = alone.queries[0]
        others.keys[places], others.values[places] = alone.keys, alone.values
        others.mask[-1] = -np.inf
        others.mask[-1, places] = 0
        for threads in (1, 2, 3):
            np.testing.assert_array_equal(others.computed(threads, kind)[-1], expected[0])


@of_every_format
@pytest.mark.parametrize(("kv_heads", "group"), [(1, 4), (3, 3), (4, 8), (8, 2)])
@pytest.mark.parametrize(("tokens", "cells"), [(1, 300), (2, 40), (1, 4096), (MANY, 300)])
def test_threads_get_the_same_however_they_divide_the_work(
    kind: GGMLQuantizationType, kv_heads: int, group: int, tokens: int, cells: int
) -> None:
    """To the bit: by one KV head or several, or by cells where heads are few or cells many."""
    visible = causal(tokens, cells)
    heads = Heads.random(visible, heads=kv_heads * group, kv_heads=kv_heads, head_dim=128)
    expected = heads.computed(1, kind)
    for threads in (2, 3, 4, 8):
        np.testing.assert_array_equal(heads.computed(threads, kind), expected)


plans_here = pytest.mark.skipif(emulated_ggml() is not None, reason="plans on this machine")


@plans_here
@pytest.mark.parametrize(("kv_heads", "group"), [(1, 4), (3, 3), (4, 8), (8, 4), (30, 1)])
@pytest.mark.parametrize(("tokens", "cells"), [(1, 300), (2, 40), (1, 4096), (MANY, 300)])
def test_fewer_threads_than_were_asked_for_have_enough_memory(
    kv_heads: int, group: int, tokens: int, cells: int
) -> None:
    """As many as OpenMP starts; three divide the work otherwise than four and may need more."""
    visible = causal(tokens, cells)
    heads = Heads.random(visible, heads=kv_heads * group, kv_heads=kv_heads, head_dim=128)
    graphs = [Graph(threads) for threads in range(1, 65)]
    sizes = [graph.work_size(heads.attention(graph, F16)) for graph in graphs]
    assert sizes == sorted(sizes)


@plans_here
@pytest.mark.parametrize("threads", [1, 64])
def test_memory_is_planned_for_the_tokens_that_there_are(threads: int) -> None:
    def planned(tokens: int) -> int:
        heads = Heads.random(causal(tokens, 4096), heads=4, kv_heads=1)
        graph = Graph(threads)
        return graph.work_size(heads.attention(graph, F16))

    assert planned(tokens=1) < planned(tokens=8) / 4


@pytest.mark.parametrize(("head_dim", "group"), [(8, 3), (64, 3), (80, 1), (128, 4)])
@pytest.mark.parametrize("scale", [1, 20])
def test_tokens_get_the_same_alone_and_beside_any_number_of_others(
    head_dim: int, group: int, scale: float
) -> None:
    """To the bit. Many are multiplied otherwise than few; far scores leave few weights to count."""
    heads = Heads.random(causal(17, 700), heads=2 * group, kv_heads=2, head_dim=head_dim)
    heads.queries[:] *= scale
    expected = heads.computed(threads=1)
    for tokens in range(1, 17):
        last = heads._replace(queries=heads.queries[-tokens:], mask=heads.mask[-tokens:])
        np.testing.assert_array_equal(last.computed(), expected[-tokens:])


@pytest.mark.parametrize("kind", [Q8_0, Q4_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize("group", range(1, 8))
def test_quantized_cells_give_a_token_the_same_alone_and_beside_others(
    kind: GGMLQuantizationType, group: int
) -> None:
    """To the bit, for each number of rows that read them where they lie."""
    heads = Heads.random(causal(17, 100), heads=2 * group, kv_heads=2, head_dim=96)
    alone = heads._replace(queries=heads.queries[-1:], mask=heads.mask[-1:])
    np.testing.assert_array_equal(
        alone.computed(kind=kind)[0], heads.computed(threads=1, kind=kind)[-1]
    )


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    heads = Heads.random(causal(4, 512), heads=2, kv_heads=1)
    heads.queries[:] *= 300
    result = heads.computed()
    assert np.isfinite(result).all()
    assert np.abs(result - heads.exact()).max() < 1e-3


@of_every_format
def test_large_scores_are_precise(kind: GGMLQuantizationType) -> None:
    """Queries and keys keep 16 bits or more: scores of 40 rounded to half precision would fail."""
    heads = Heads.random(causal(4, 512), heads=6, kv_heads=2)
    heads.queries[:] *= 10
    difference = heads.computed(kind=kind) - heads.exact(kind)
    assert np.abs(difference).max() < 5e-4


def test_a_token_that_sees_no_cell_gets_zeros() -> None:
    visible = causal(3, 256)
    visible[1] = False
    heads = Heads.random(visible, heads=2, kv_heads=1)
    result = heads.computed()
    assert not result[1].any()
    others = Heads(heads.queries[[0, 2]], heads.keys, heads.values, heads.mask[[0, 2]])
    assert np.abs(result[[0, 2]] - others.exact()).max() < ROUNDING


@pytest.mark.parametrize("tokens", [1, 4, MANY])
def test_the_content_of_a_masked_cell_changes_nothing(tokens: int) -> None:
    visible = _side_by_side(tokens + 1, 512)[:tokens]  # the last one is another request
    heads = Heads.random(visible, heads=2, kv_heads=1)
    before = heads.computed()
    masked = np.flatnonzero(~visible.any(axis=0))
    heads.keys[masked[::2]] = np.nan
    heads.values[masked] = np.inf
    np.testing.assert_array_equal(heads.computed(), before)


@pytest.mark.parametrize("tokens", [1, MANY])
@pytest.mark.parametrize("place", ["keys", "values"])
def test_nan_in_a_visible_cell_is_not_hidden(tokens: int, place: str) -> None:
    heads = Heads.random(causal(tokens, 256), heads=1, kv_heads=1)
    getattr(heads, place)[17] = np.nan
    assert np.isnan(heads.computed()).all()


@of_every_format
@pytest.mark.parametrize("tokens", [1, MANY])
def test_an_infinite_value_in_a_visible_cell_is_not_hidden(
    kind: GGMLQuantizationType, tokens: int
) -> None:
    heads = Heads.random(causal(tokens, 256), heads=2, kv_heads=1)
    before = heads.computed(kind=kind)
    heads.values[255] = np.inf
    result = heads.computed(kind=kind)
    assert not np.isfinite(result[-1]).any()
    np.testing.assert_array_equal(result[:-1], before[:-1])


@pytest.mark.parametrize("head_dim", [64, 128])
def test_an_infinite_key_changes_no_token_that_does_not_see_it(head_dim: int) -> None:
    """The one that sees it gets no number by tiles, and may get one by vectors."""
    heads = Heads.random(causal(MANY, 256), heads=2, kv_heads=1, head_dim=head_dim)
    before = heads.computed()
    heads.keys[255] = np.inf
    np.testing.assert_array_equal(heads.computed()[:-1], before[:-1])


def test_attention_of_no_tokens_is_empty() -> None:
    heads = Heads.random(causal(0, 256), heads=2, kv_heads=1)
    assert heads.computed().shape == (0, 2, 64)

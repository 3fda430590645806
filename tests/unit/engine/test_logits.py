"""Selections over logits, against plain sorting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from server.engine.sampling.logits import draw, largest, nucleus, total, weights

# Few distinct values, so that ties are common; long enough for several blocks.
rows = hnp.arrays(
    np.float32,
    st.integers(1, 1500),
    elements=st.sampled_from([float(v) for v in range(-6, 7)]),
)


def by_score(row: NDArray[np.float32]) -> NDArray[Any]:
    return np.argsort(-row, kind="stable")


@given(rows, st.integers(1, 40))
def test_largest_is_the_head_of_a_stable_sort(row: NDArray[np.float32], k: int) -> None:
    assert largest(row, k).tolist() == sorted(by_score(row)[:k].tolist())


@given(rows, st.floats(0, 1))
def test_nucleus_is_the_shortest_sorted_prefix_with_the_mass(
    row: NDArray[np.float32], share: float
) -> None:
    mass = weights(row)
    target = share * total(mass)
    order = by_score(row)
    reached = np.cumsum(mass[order], dtype=np.float64)
    kept = nucleus(row, mass, target)
    assert sorted(row[kept]) == sorted(row[order[: kept.size]])
    assert reached[kept.size - 1] >= target * (1 - 1e-6)
    assert kept.size == 1 or reached[kept.size - 2] < target * (1 + 1e-6)


def test_nucleus_of_a_flat_row_is_as_exact_as_of_a_peaked_one() -> None:
    row = np.random.default_rng(0).normal(0, 0.3, 20_000).astype(np.float32)
    mass = weights(row)
    kept = nucleus(row, mass, 0.9 * total(mass))
    order = by_score(row)
    needed = int(np.searchsorted(np.cumsum(mass[order], dtype=float), 0.9 * total(mass))) + 1
    assert abs(kept.size - needed) <= 1
    assert set(kept.tolist()) >= set(order[: needed - 1].tolist())


@given(
    hnp.arrays(np.float32, st.integers(1, 700), elements=st.sampled_from([0.0, 0.25, 1.0])),
    st.floats(0, 1, exclude_max=True),
)
def test_draw_falls_on_the_index_whose_stretch_holds_the_point(
    mass: NDArray[np.float32], uniform: float
) -> None:
    if not mass.any():
        mass[-1] = 1
    running = np.cumsum(mass, dtype=np.float64)
    index = draw(mass, uniform)
    assert mass[index] > 0
    point = uniform * running[-1]
    assert running[index] - mass[index] - 1e-6 <= point <= running[index] + 1e-6


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(1.0, 0)])
def test_draw_never_takes_an_index_without_mass(uniform: float) -> None:
    mass = np.zeros(1000, dtype=np.float32)
    mass[[300, 640]] = 1e-30, 1
    assert draw(mass, uniform) in {300, 640}


def test_weights_survive_extreme_logits_and_temperatures() -> None:
    row = np.array([3e38, -3e38, -np.inf, 0], dtype=np.float32)
    for temperature in (1e-5, 1.0, 1e30):
        mass = weights(row, temperature)
        assert mass[0] == 1
        assert mass[2] == 0
        assert np.isfinite(mass).all()

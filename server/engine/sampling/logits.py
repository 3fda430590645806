"""Selecting tokens from a row of logits: pure functions, exact, and fast at 262k tokens.

A full sort or `numpy.argpartition` of such a row takes milliseconds. The maxima of small blocks
bound the k-th largest value from below, so one cheap pass leaves a small pool that contains the k
largest; only this pool is partitioned or sorted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Indices = NDArray[np.intp]

# Sizes of the searches below; they decide how long a search takes, never what it finds. Choices.
_BLOCK = 128
_SLICES = 4096
_SLICES_PER_UNIT = np.float32(64)


class Candidates(NamedTuple):
    """Candidate tokens and their logits; ``ids`` None means the whole vocabulary in order."""

    ids: Indices | None
    logits: Logits

    def keep(self, index: Indices) -> Candidates:
        """Only the candidates at ``index``."""
        return Candidates(index if self.ids is None else self.ids[index], self.logits[index])

    def token(self, index: int) -> int:
        """The id of the candidate at ``index``."""
        return index if self.ids is None else int(self.ids[index])


def finite(logits: Logits) -> Logits:
    """``logits`` with NaN as -inf and +inf as the largest float, so that sums are defined."""
    if np.isfinite(logits.max()):
        return logits
    top = float(np.finfo(np.float32).max)
    return np.nan_to_num(logits, nan=-np.inf, posinf=top, neginf=-np.inf)


def weights(logits: Logits, temperature: float = 1.0) -> Logits:
    """Unnormalised probabilities exp((logit - largest) / temperature); the largest is 1.

    ``logits`` must be `finite` and ``temperature`` above 0.
    """
    # In place: at 262k tokens, fresh memory costs more than the arithmetic.
    with np.errstate(over="ignore"):
        mass: Logits = logits - logits.max()
        if temperature != 1.0:
            mass /= np.float32(temperature)
        np.exp(mass, out=mass)
    return mass


def total(mass: Logits) -> float:
    """The sum of ``mass``, accumulated in float64 over blocks."""
    return float(np.add.reduceat(mass, np.arange(0, mass.size, _BLOCK)).sum(dtype=np.float64))


def largest(values: NDArray[np.floating], k: int) -> Indices:
    """Indices of the ``k`` largest values, ascending; of equal values, the first ones."""
    if k >= values.size:
        return np.arange(values.size)
    pool = _pool(values, k)
    pooled = values[pool]
    smallest_kept = np.partition(pooled, pooled.size - k)[pooled.size - k]
    above = pool[pooled > smallest_kept]
    equal = pool[pooled == smallest_kept]
    if above.size + equal.size > k:
        equal = equal[: k - above.size]
    return np.sort(np.concatenate((above, equal)))


def _pool(values: NDArray[np.floating], k: int) -> Indices:
    """Ascending indices that include those of the ``k`` largest values."""
    starts = np.arange(0, values.size, _BLOCK)
    if k * 2 > starts.size:
        return np.arange(values.size)
    peaks = np.maximum.reduceat(values, starts)
    bound = np.partition(peaks, peaks.size - k)[peaks.size - k]
    return np.flatnonzero(values >= bound)


def nucleus(score: NDArray[np.floating], mass: Logits, target: float) -> Indices:
    """The fewest indices, best score first, whose masses reach ``target``; at least one."""
    for size in (64, 1024):
        best = _sorted(score, largest(score, size))
        reached = np.cumsum(mass[best], dtype=np.float64)
        if reached[-1] >= target or size >= score.size:
            return best[: int(np.searchsorted(reached, target)) + 1]
    return _wide_nucleus(score, mass, target)


def _wide_nucleus(score: NDArray[np.floating], mass: Logits, target: float) -> Indices:
    """`nucleus` for flat rows: sums slices of the score and sorts only the slice it ends in."""
    depth = (score.max() - score) * _SLICES_PER_UNIT
    slices = np.minimum(depth, _SLICES - 1).astype(np.intp)
    reached = np.cumsum(np.bincount(slices, weights=mass, minlength=_SLICES))
    last = min(int(np.searchsorted(reached, target)), _SLICES - 1)
    before = reached[last - 1] if last else 0.0
    edge = _sorted(score, np.flatnonzero(slices == last))
    inside = before + np.cumsum(mass[edge], dtype=np.float64)
    count = int(np.searchsorted(inside, target)) + 1
    return np.concatenate((np.flatnonzero(slices < last), edge[:count]))


def _sorted(score: NDArray[np.floating], index: Indices) -> Indices:
    """``index``, best score first."""
    return index[np.argsort(-score[index], kind="stable")]


def typicality(mass: Logits) -> Logits:
    """How close each candidate's surprise is to the entropy: 0 is best, lower is less typical.

    From locally typical sampling, https://arxiv.org/abs/2202.00666.
    """
    present = mass > 0
    log_p = np.log(mass / total(mass), where=present, out=np.full_like(mass, -np.inf))
    terms = np.multiply(mass, log_p, where=present, out=np.zeros_like(mass))
    entropy = -total(terms) / total(mass)
    nearness: Logits = -np.abs(log_p + np.float32(entropy))
    return nearness


def draw(mass: Logits, uniform: float) -> int:
    """Draws an index with probability proportional to its mass, by ``uniform`` in [0, 1).

    Searches block sums first, so that the running sum covers one block only.
    """
    starts = np.arange(0, mass.size, _BLOCK)
    sums = np.cumsum(np.add.reduceat(mass, starts), dtype=np.float64)
    point = uniform * sums[-1]
    block = _first_beyond(sums, point)
    before = sums[block - 1] if block else 0.0
    inside = np.cumsum(mass[starts[block] : starts[block] + _BLOCK], dtype=np.float64)
    return int(starts[block]) + _first_beyond(inside, point - before)


def _first_beyond(running: NDArray[np.float64], point: float) -> int:
    """The first index whose sum exceeds ``point``; the last with mass if rounding leaves none."""
    found = int(np.searchsorted(running, point, side="right"))
    return found if found < running.size else int(np.searchsorted(running, running[-1]))

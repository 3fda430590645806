"""The plot: how many times better than llama-server, workload by workload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tests.benchmark.comparison import Row

_WON, _LOST, _TARGET = "#2a7f62", "#b5473c", "#222222"
_TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


def plot(rows: Sequence[Row], file: Path) -> None:
    """Write a PNG of the rows that have a gain: one bar each, a line at its target."""
    bars = [row for row in reversed(rows) if row.gain is not None and row.wanted_gain is not None]
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(bars)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(bars):
        assert row.gain is not None
        assert row.wanted_gain is not None
        colour = _WON if row.met else _LOST
        # Bars begin at 1: to its right is faster than the peer, to its left slower.
        axes.barh(place, row.gain - 1, left=1, height=0.6, color=colour)
        axes.plot([row.wanted_gain] * 2, [place - 0.4, place + 0.4], color=_TARGET, linewidth=2)
    gains = [gain for row in bars for gain in (row.gain, row.wanted_gain) if gain is not None]
    axes.set_xscale("log", base=2)
    axes.set_xlim(min([0.8, *gains]) * 0.9, max([2, *gains]) * 1.15)
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}×"))
    axes.set_yticks(range(len(bars)), [row.label.rpartition(",")[0] or row.label for row in bars])
    axes.axvline(1, color=_TARGET, linewidth=0.8)
    axes.set_xlabel("times better than llama-server's better configuration; black: target")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)

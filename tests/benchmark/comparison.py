"""Medians, ratios and whether the targets are met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Literal

import msgspec

from tests.benchmark.session import OURS, OURS_ONE_THREAD, PEER, PEER_TUNED, Sample, Start

SERVERS = (OURS, PEER, PEER_TUNED)
_MEMORY_ALLOWANCE = 60.0
_START = 1.2
# Templates close a turn in other tokens than the model does; nothing else is to be read again.
_RECOMPUTED = 1.05


class Measure(msgspec.Struct, frozen=True):
    """A number to compare: field ``field`` of the summaries of one workload.

    ``target`` is what our number, divided by the peer's better one, should reach (``more``) or
    stay below (``less``).
    """

    experiment: str
    workload: str
    label: str
    field: str
    better: Literal["more", "less"]
    target: float


MEASURES = (
    Measure("main", "single", "single: tokens/s", "tokens_per_second", "more", 1.0),
    Measure("main", "c8", "c8: tokens/s", "tokens_per_second", "more", 1.05),
    Measure("main", "c16", "c16: tokens/s", "tokens_per_second", "more", 1.05),
    Measure("main", "prefix16", "prefix16: TTFT p50, s", "ttft_p50", "less", 0.3),
    Measure("main", "prefix16", "prefix16: all done, s", "seconds", "less", 0.4),
    Measure("main", "stall", "stall: ITL p99, s", "itl_p99", "less", 0.1),
    Measure("main", "stall", "stall: newcomer's TTFT, s", "newcomer_ttft", "less", 1.25),
    Measure("main", "json", "json: characters/s", "characters_per_second", "more", 1.3),
    Measure("gemma", "json", "json on Gemma: characters/s", "characters_per_second", "more", 1.5),
    Measure("main", "returning", "returning: TTFT p50, s", "ttft_p50", "less", 1.0),
    Measure("agent", "agent-messages", "agent, messages: TTFT p50, s", "ttft_p50", "less", 0.35),
    Measure("agent", "agent-messages", "agent, messages: TTFT p95, s", "ttft_p95", "less", 0.5),
    Measure("agent", "agent-responses", "agent, responses: TTFT p50, s", "ttft_p50", "less", 0.35),
    Measure("agent", "agent-responses", "agent, responses: TTFT p95, s", "ttft_p95", "less", 0.5),
    Measure("main", "copy", "copy: tokens/s", "tokens_per_second", "more", 1.4),
)


# Which model was started, where it is not the usual one.
_TITLES = {"main": "", "gemma": "Gemma "}
# Our cells of sliding-window layers are as many as those of others, so that any prefix can be
# resumed (docs/architecture.md); llama-server keeps those of one window.
_LARGER_CACHES = {"Gemma "}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table. ``values`` are medians by server; None: a request failed.

    ``gain`` tells how many times better than the peer we are, and ``wanted_gain`` what the target
    asks for; ``met`` is None if there is no target.
    """

    label: str
    values: dict[str, float | None]
    ratio: str
    target: str
    met: bool | None
    gain: float | None = None
    wanted_gain: float | None = None


def compare(
    samples: Sequence[Sample],
    starts: Sequence[Start],
    *,
    measures: Sequence[Measure] = MEASURES,
    titles: Mapping[str, str] = _TITLES,
) -> list[Row]:
    """A row for each measure; ``titles`` begin the labels of starts, by experiment."""
    rows = [row for measure in measures if (row := _measured(measure, samples))]
    rows += _counted(samples)
    rows += _computed(samples)
    for experiment, title in titles.items():
        rows += _started([start for start in starts if start.experiment == experiment], title)
    rows += _beside_a_neighbour(samples)
    return rows


def _measured(measure: Measure, samples: Sequence[Sample]) -> Row | None:
    values = values_of(samples, measure.experiment, measure.workload, measure.field)
    return _compared(measure, values) if OURS in values else None


def _compared(measure: Measure, values: dict[str, float | None]) -> Row:
    ours = values[OURS]
    peers = [value for name, value in values.items() if name != OURS and value is not None]
    more = measure.better == "more"
    target = f"{'≥' if more else '≤'} {measure.target:.2f}"
    if ours is None or not peers:
        # The target is met if no peer answers.
        met = None if ours is not None and len(values) == 1 else ours is not None
        return Row(label=measure.label, values=values, ratio="–", target=target, met=met)
    ratio = ours / (max(peers) if more else min(peers))
    return Row(
        label=measure.label,
        values=values,
        ratio=f"{ratio:.2f}",
        target=target,
        met=ratio >= measure.target if more else ratio <= measure.target,
        gain=ratio if more else 1 / ratio,
        wanted_gain=measure.target if more else 1 / measure.target,
    )


def values_of(
    samples: Sequence[Sample], experiment: str, workload: str, field: str
) -> dict[str, float | None]:
    """The median of each server that ran ``workload``; None where any request failed."""
    found: dict[str, list[float | None]] = {}
    for sample in samples:
        if (sample.experiment, sample.summary.workload) == (experiment, workload):
            value = None if sample.summary.failed else getattr(sample.summary, field)
            found.setdefault(sample.server, []).append(value)
    return {server: _median(values) for server, values in found.items()}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if len(known) == len(values) else None


def _counted(samples: Sequence[Sample]) -> Iterator[Row]:
    """Shares of answers that must be all of them."""
    yield from _share(
        "overflow: answered, %",
        [sample for sample in samples if sample.experiment == "overflow"],
        lambda sample: sample.summary.requests - sample.summary.failed,
    )
    yield from _share(
        "json: valid against the schema, %",
        [sample for sample in samples if sample.valid is not None],
        lambda sample: sample.valid or 0,
    )


def _share(label: str, samples: Sequence[Sample], good: Callable[[Sample], int]) -> Iterator[Row]:
    counts: dict[str, tuple[int, int]] = {}
    for sample in samples:
        passed, asked = counts.get(sample.server, (0, 0))
        counts[sample.server] = (passed + good(sample), asked + sample.summary.requests)
    if OURS in counts:
        values: dict[str, float | None] = {
            server: 100 * passed / asked for server, (passed, asked) in counts.items()
        }
        yield Row(label=label, values=values, ratio="", target="all", met=values[OURS] == 100)


def _computed(samples: Sequence[Sample]) -> Iterator[Row]:
    """Prompt tokens computed over an agent's session, as a multiple of the new ones."""
    for api in ("messages", "responses"):
        values = values_of(samples, "agent", f"agent-{api}", "computed")
        if OURS in values:
            ours = values[OURS]
            yield Row(
                label=f"agent, {api}: prompt tokens computed / new",
                values=values,
                ratio="",
                target=f"≤ {_RECOMPUTED:.2f}",
                met=ours is not None and ours <= _RECOMPUTED,
            )


def _started(starts: Sequence[Start], title: str) -> Iterator[Row]:
    by_server = {name: [start for start in starts if start.server == name] for name in SERVERS}
    by_server = {name: started for name, started in by_server.items() if started}
    if OURS not in by_server:
        return
    memory: dict[str, float | None] = {
        name: _median(
            [start.resident_bytes / 1e6 if start.resident_bytes else None for start in started]
        )
        for name, started in by_server.items()
    }
    ours = memory[OURS]
    peers = [value for name, value in memory.items() if name != OURS and value is not None]
    if ours is not None and peers:
        excess = ours - min(peers)
        like = title not in _LARGER_CACHES
        yield Row(
            label=f"{title}memory after the first answer, MB",
            values=memory,
            ratio=f"{excess:+.0f} MB",
            target=f"≤ +{_MEMORY_ALLOWANCE:.0f} MB" if like else "",
            met=excess <= _MEMORY_ALLOWANCE if like else None,
        )
    cold: dict[str, float | None] = {
        name: median(start.cold_start for start in started) for name, started in by_server.items()
    }
    label = f"{title}start to first token, s"
    yield _compared(Measure("", "", label, "cold_start", "less", _START), cold)


def _beside_a_neighbour(samples: Sequence[Sample]) -> Iterator[Row]:
    values = values_of(samples, "neighbour", "single", "tokens_per_second")
    ours, one = values.get(OURS), values.pop(OURS_ONE_THREAD, None)
    if ours is None or one is None:
        return
    yield Row(
        label=f"single beside a busy process: tokens/s (with `--threads 1`: {one:.1f})",
        values=values,
        ratio=f"{ours / one:.2f} of `--threads 1`",
        target="≥ 0.90",
        met=ours / one >= 0.9,
    )

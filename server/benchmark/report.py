"""Summarises a run, as numbers and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from server.benchmark.target import Run
from server.benchmark.timed_client import Answer


class Summary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run in numbers; times are in seconds, over the requests that did not fail.

    ``tokens_per_second`` and ``characters_per_second`` are over ``seconds``, the whole run. TTFT is
    the time to a stream's first piece of text, ITL the time between two pieces. ``computed``, where
    prompts grow, are the prompt tokens that were computed, as a multiple of those that were new.
    """

    workload: str
    requests: int
    failed: int
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_per_second: float
    characters_per_second: float
    ttft_p50: float | None = None
    ttft_p95: float | None = None
    ttft_max: float | None = None
    itl_p50: float | None = None
    itl_p99: float | None = None
    itl_max: float | None = None
    newcomer_ttft: float | None = None
    accepted_tokens: int = 0
    rejected_tokens: int = 0
    computed: float | None = None
    errors: list[str] = []


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of the values do not exceed (nearest rank)."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def summarize(run: Run) -> Summary:
    """The numbers of ``run``."""
    everyone = [*run.answers, *([run.newcomer] if run.newcomer else [])]
    streams = [answer for answer in run.answers if answer.error is None]
    first = [answer.first for answer in streams if answer.first is not None]
    gaps = [gap for answer in streams for gap in answer.gaps]
    tokens = sum(answer.completion_tokens for answer in streams)
    return Summary(
        workload=run.workload,
        requests=len(everyone),
        failed=sum(answer.error is not None for answer in everyone),
        seconds=run.seconds,
        prompt_tokens=sum(answer.prompt_tokens for answer in streams),
        cached_tokens=sum(answer.cached_tokens for answer in streams),
        completion_tokens=tokens,
        tokens_per_second=tokens / run.seconds,
        characters_per_second=sum(len(answer.text) for answer in streams) / run.seconds,
        ttft_p50=percentile(first, 0.5),
        ttft_p95=percentile(first, 0.95),
        ttft_max=percentile(first, 1),
        itl_p50=percentile(gaps, 0.5),
        itl_p99=percentile(gaps, 0.99),
        itl_max=percentile(gaps, 1),
        newcomer_ttft=run.newcomer.first if run.newcomer else None,
        accepted_tokens=sum(answer.accepted_tokens for answer in streams),
        rejected_tokens=sum(answer.rejected_tokens for answer in streams),
        computed=_computed(streams) if run.growing else None,
        errors=sorted({answer.error for answer in everyone if answer.error is not None}),
    )


def _computed(turns: Sequence[Answer]) -> float | None:
    """Prompt tokens computed, divided by the new ones, which are those of the last prompt."""
    if not turns:
        return None
    computed = sum(turn.prompt_tokens - turn.cached_tokens for turn in turns)
    return computed / max(1, turns[-1].prompt_tokens)


def table(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """A heading and a row for each workload, as text."""
    heading = (
        *("workload", "ok", "seconds", "tokens/s", "characters/s"),
        *("TTFT p50 ms", "max", "ITL p50 ms", "p99", "max", "cached", "notes"),
    )
    return [heading, *map(_row, summaries)]


def _row(summary: Summary) -> tuple[str, ...]:
    return (
        summary.workload,
        f"{summary.requests - summary.failed}/{summary.requests}",
        f"{summary.seconds:.1f}",
        f"{summary.tokens_per_second:.1f}",
        f"{summary.characters_per_second:.0f}",
        _milliseconds(summary.ttft_p50),
        _milliseconds(summary.ttft_max),
        _milliseconds(summary.itl_p50, digits=1),
        _milliseconds(summary.itl_p99, digits=1),
        _milliseconds(summary.itl_max),
        f"{summary.cached_tokens}/{summary.prompt_tokens}",
        "; ".join(_notes(summary)),
    )


def _notes(summary: Summary) -> list[str]:
    notes = []
    if summary.computed is not None:
        notes.append(f"{summary.computed:.2f} x the new prompt tokens computed")
    if summary.newcomer_ttft is not None:
        notes.append(f"newcomer's TTFT {_milliseconds(summary.newcomer_ttft)} ms")
    if predicted := summary.accepted_tokens + summary.rejected_tokens:
        notes.append(f"{summary.accepted_tokens} of {predicted} predicted tokens accepted")
    return notes + summary.errors


def _milliseconds(seconds: float | None, digits: int = 0) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.{digits}f}"

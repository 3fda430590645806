"""Models of real shapes beside llama-server, and beside what this machine's memory allows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.benchmark.comparison import Measure, Row, compare, values_of
from tests.benchmark.servers import dragoman, llama_server
from tests.benchmark.session import OURS, PEER, PEER_TUNED, Experiment, Session, starts
from tests.benchmark.shapes import LARGEST, NAMES, bytes_per_token

WORKLOADS = {f"shapes-{name}": name for name in NAMES}
"""Workloads, and the names of the models that they ask."""
USUAL = tuple(workload for workload, name in WORKLOADS.items() if name != LARGEST)
"""Those that need no more than 16 GiB of memory."""

_ASKED = ("single", "c8", "c16", "stall", "prompt", "deep")
_ASKED_QUICK = ("single", "c8")
# Where more slots help llama-server.
_TUNED = ("c8", "c16")
_TAKES = {"single": 2}
# Enough for `deep`, and for `c16` with a sixteenth for each slot.
_KV_TOKENS = 8192
_MIXTURE_C8 = 2.0


def experiments(
    models: Mapping[str, Path], peer: Path, repeats: int, *, quick: bool
) -> list[Experiment]:
    """One for each of ``models``, by name.

    Random weights repeat themselves, so this server may not look tokens up in what was said.
    """
    asked = _ASKED_QUICK if quick else _ASKED
    tuned = [name for name in asked if name in _TUNED]
    servers = [
        (dragoman(OURS, "--no-prompt-lookup", kv_tokens=_KV_TOKENS), asked),
        (llama_server(PEER, peer, kv_tokens=_KV_TOKENS), asked),
        (llama_server(PEER_TUNED, peer, "-np", "16", kv_tokens=_KV_TOKENS), tuned),
    ]
    times = starts(repeats, quick=quick)
    return [
        Experiment(name, file, servers, repeats, _TAKES, starts=times)
        for name, file in models.items()
    ]


def rows(
    session: Session, models: Mapping[str, Path], bandwidth: Mapping[int, float]
) -> Iterator[Row]:
    """The lines of each model; ``bandwidth`` is in bytes per second, by the number of threads."""
    for name, file in models.items():
        yield from compare(
            [sample for sample in session.samples if sample.experiment == name],
            session.starts,
            measures=_measures(name),
            titles={name: f"{_title(name)} "},
        )
        yield from _beside_the_limit(session, name, bytes_per_token(file), bandwidth)


def _title(name: str) -> str:
    shape, _, kind = name.partition("-")
    return f"{shape} {kind.upper()}"


def _measures(name: str) -> list[Measure]:
    c8 = _MIXTURE_C8 if name.startswith("moe") else 1.6
    title = _title(name)
    return [
        Measure(name, "single", f"{title} single: tokens/s", "tokens_per_second", "more", 1.2),
        Measure(name, "c8", f"{title} c8: tokens/s", "tokens_per_second", "more", c8),
        Measure(name, "c16", f"{title} c16: tokens/s", "tokens_per_second", "more", 1.8),
        Measure(name, "stall", f"{title} stall: newcomer's TTFT, s", "newcomer_ttft", "less", 0.55),
        Measure(name, "prompt", f"{title} prompt: TTFT, s", "ttft_p50", "less", 0.55),
        Measure(name, "deep", f"{title} deep: ITL p50, s", "itl_p50", "less", 1 / 1.4),
    ]


def _beside_the_limit(
    session: Session, name: str, read: int, bandwidth: Mapping[int, float]
) -> Iterator[Row]:
    """The speed of a stream's decoding, as a share of what reading ``read`` bytes a token allows.

    All threads read; the row also tells what one would allow.
    """
    times = values_of(session.samples, name, "single", "itl_p50")
    if not times or not bandwidth:
        return
    limits = {threads: speed / read for threads, speed in bandwidth.items()}
    most = max(limits.values())
    shown = ", ".join(f"{limit:.0f} with {threads}" for threads, limit in limits.items())
    yield Row(
        label=f"{_title(name)} single: decoding, % of the limit of memory",
        values={
            server: None if time is None else 100 / (time * most) for server, time in times.items()
        },
        ratio=f"limit, tokens/s by threads: {shown}",
        target="",
        met=None,
    )


def thread_counts() -> list[int]:
    """One thread, and as many as there are processors."""
    return sorted({1, os.cpu_count() or 1})

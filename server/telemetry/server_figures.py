"""Metrics for Prometheus: the build, the state of each model, and what workers take."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server import __version__
from server.core.model_info import ModelEntry, ModelState


class _Taken(NamedTuple):
    """What a process takes: resident memory in bytes, processor time in seconds."""

    memory: int
    seconds: float


class ServerFigures(Collector):
    """Figures of the models of ``models`` and of the workers whose process ids ``pids`` gives.

    Workers are looked at in /proc, and left out where there is none (macOS).
    """

    def __init__(
        self, models: Callable[[], Sequence[ModelEntry]], pids: Callable[[], Mapping[str, int]]
    ) -> None:
        self._models = models
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        yield _build()
        yield from self._of_models()
        yield from self._of_workers()

    def _of_models(self) -> Iterable[Metric]:
        states = GaugeMetricFamily(
            "dragoman_model_state",
            "1 for the state that a model is in, 0 for the others.",
            labels=["model", "state"],
        )
        memory = GaugeMetricFamily(
            "dragoman_model_memory_bytes",
            "Memory of a loaded model that counts against the budget.",
            labels=["model"],
        )
        for entry in self._models():
            for state in get_args(ModelState):
                states.add_metric([entry.id, state], float(entry.state == state))
            if entry.state == "ready" and entry.info and entry.info.memory_bytes is not None:
                memory.add_metric([entry.id], entry.info.memory_bytes)
        return states, memory

    def _of_workers(self) -> Iterable[Metric]:
        memory = GaugeMetricFamily(
            "dragoman_worker_resident_memory_bytes",
            "Resident memory of a model's worker, pages of the model's file included.",
            labels=["model"],
        )
        seconds = CounterMetricFamily(
            "dragoman_worker_cpu_seconds",
            "Processor time of a model's worker; it begins anew with each worker.",
            labels=["model"],
        )
        for model, pid in self._pids().items():
            if (taken := _taken_by(pid)) is not None:
                memory.add_metric([model], taken.memory)
                seconds.add_metric([model], taken.seconds)
        return memory, seconds


@cache
def _build() -> Metric:
    """Facts that do not change; reading a package's version takes a millisecond."""
    labels = {
        "version": __version__,
        "llama_cpp_python": metadata.version("llama_cpp_python"),
        "python": platform.python_version(),
    }
    build = GaugeMetricFamily("dragoman_build_info", "Always 1.", labels=list(labels))
    build.add_metric(list(labels.values()), 1)
    return build


def _taken_by(pid: int) -> _Taken | None:
    """What the process takes; None where it has ended or cannot be looked at."""
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name of the program, in brackets, may hold anything; see proc_pid_stat(5).
    fields = stat.rpartition(")")[2].split()
    user, system, pages = int(fields[11]), int(fields[12]), int(fields[21])
    ticks = os.sysconf("SC_CLK_TCK")
    return _Taken(pages * os.sysconf("SC_PAGE_SIZE"), (user + system) / ticks)

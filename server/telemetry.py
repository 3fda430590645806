"""Metrics for Prometheus, and the log."""

from __future__ import annotations

import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.core.events import Usage
from server.core.ids import request_id
from server.core.model_info import EngineStats


def new_request_id() -> str:
    """A random id for one request, in the ``x-request-id`` header and in the log."""
    return f"req_{secrets.token_hex(16)}"


_TTFT_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ITL_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counters and histograms of the API, and gauges of the engines, read at each scrape.

    ``stats`` returns the engine statistics of each loaded model by its id, ``restarts`` the number
    of times each model's worker was respawned.
    """

    def __init__(
        self,
        stats: Callable[[], Mapping[str, EngineStats]],
        restarts: Callable[[], Mapping[str, int]],
    ) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "dragoman_requests",
            "Requests answered.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "dragoman_requests_in_flight",
            "Requests being answered now.",
            registry=self._registry,
        )
        self._ttft = Histogram(
            "dragoman_ttft_seconds",
            "Time from a request's arrival at the model to its first token.",
            ["model"],
            buckets=_TTFT_SECONDS,
            registry=self._registry,
        )
        self._itl = Histogram(
            "dragoman_itl_seconds",
            "Time between two tokens of an answer.",
            ["model"],
            buckets=_ITL_SECONDS,
            registry=self._registry,
        )
        self._prompt_tokens = Counter(
            "dragoman_prompt_tokens",
            "Prompt tokens of requests that produced a token or finished.",
            ["model"],
            registry=self._registry,
        )
        self._completion_tokens = Counter(
            "dragoman_completion_tokens",
            "Generated tokens, including those of unfinished answers.",
            ["model"],
            registry=self._registry,
        )
        self._registry.register(_EngineCollector(stats, restarts))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def generation(self, model: str) -> GenerationMeter:
        """A meter for one request to ``model``; its clock starts now."""
        return GenerationMeter(
            ttft=self._ttft.labels(model),
            itl=self._itl.labels(model),
            prompt_tokens=self._prompt_tokens.labels(model),
            completion_tokens=self._completion_tokens.labels(model),
        )

    def embedded(self, model: str, tokens: int) -> None:
        """Count the ``tokens`` of an answered request for embeddings."""
        self._prompt_tokens.labels(model).inc(tokens)


class GenerationMeter:
    """Observes one request: its time to first token, the time between tokens, and token counts.

    Tokens are counted as they arrive, since an answer may be cancelled or fail. The prompt, which
    several answers may share, is counted once, with the first token or end.
    """

    def __init__(
        self, *, ttft: Histogram, itl: Histogram, prompt_tokens: Counter, completion_tokens: Counter
    ) -> None:
        self._ttft = ttft
        self._itl = itl
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = completion_tokens
        self._uncounted_prompt = 0
        self._started = time.perf_counter()
        self._last: dict[int, float] = {}
        self._generated: dict[int, int] = {}

    def accepted(self, prompt_tokens: int) -> None:
        """Note the number of prompt tokens, to be counted later."""
        self._uncounted_prompt = prompt_tokens

    def tokens(self, index: int, count: int) -> None:
        """Observe ``count`` more tokens of answer ``index``."""
        now = time.perf_counter()
        if not self._last:
            self._ttft.observe(now - self._started)
        elif index in self._last and count:
            self._itl.observe((now - self._last[index]) / count)
        self._last[index] = now
        self._count(index, count)

    def finished(self, index: int, usage: Usage) -> None:
        """Count the tokens of the complete answer ``index`` that produced no text."""
        self._count(index, usage.completion_tokens - self._generated.get(index, 0))

    def _count(self, index: int, generated: int) -> None:
        self._prompt_tokens.inc(self._uncounted_prompt)
        self._uncounted_prompt = 0
        self._completion_tokens.inc(generated)
        self._generated[index] = self._generated.get(index, 0) + generated


class _EngineCollector(Collector):
    """Turns `EngineStats` into metrics, one series per model."""

    def __init__(
        self,
        stats: Callable[[], Mapping[str, EngineStats]],
        restarts: Callable[[], Mapping[str, int]],
    ) -> None:
        self._stats = stats
        self._restarts = restarts

    def collect(self) -> Iterable[Metric]:
        stats = self._stats()
        for field in EngineStats.__struct_fields__:
            name = f"dragoman_engine_{field.removesuffix('_total')}"
            counts = field.endswith("_total")
            family: Metric = (
                CounterMetricFamily(name, _HELP[field], labels=["model"])
                if counts
                else GaugeMetricFamily(name, _HELP[field], labels=["model"])
            )
            for model, figures in stats.items():
                sample = f"{name}_total" if counts else name
                family.add_sample(sample, {"model": model}, getattr(figures, field))
            yield family
        restarts = CounterMetricFamily(
            "dragoman_worker_restarts", "Times a model's worker was respawned.", labels=["model"]
        )
        for model, count in self._restarts().items():
            restarts.add_metric([model], count)
        yield restarts


_HELP = {
    "active": "Sequences being decoded.",
    "waiting": "Requests in the queue.",
    "kv_cells": "KV cells in total.",
    "kv_cells_used": "KV cells in use.",
    "threads": "Threads that compute.",
    "steps_total": "Engine steps.",
    "prompt_tokens_total": "Prompt tokens admitted.",
    "generated_tokens_total": "Tokens generated.",
    "cached_tokens_total": "Prompt tokens taken from the prefix cache.",
    "preemptions_total": "Sequences preempted for lack of KV cells.",
    "disk_reads_total": "Segments of cached prefixes read from disk.",
    "disk_read_bytes_total": "Bytes of cached prefixes read from disk.",
    "disk_tokens_total": "Tokens of prompts that were read from disk instead of computed.",
    "disk_seconds_saved": "Seconds that computing those tokens would take now.",
    "disk_writes_total": "Segments of cached prefixes written to disk.",
    "disk_written_bytes_total": "Bytes of cached prefixes written to disk.",
    "disk_unusable_total": "Damaged or foreign files of cached prefixes that were removed.",
}


def configure_logging(log_format: Literal["text", "json"], level: str) -> None:
    """Send the log to standard error, one line per record, with the request's id."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = request_id.get()
        return super().format(record)


class _JsonFormatter(logging.Formatter):
    """One JSON object per record; the record's ``fields`` become keys."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": request_id.get(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()

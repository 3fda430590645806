"""Metrics for Prometheus: figures of engines and workers, read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.core.model_info import EngineStats


class EngineFigures(Collector):
    """Turns `EngineStats` into metrics, one series per model.

    ``stats`` returns the engine statistics of each loaded model by its id, ``restarts`` the number
    of times each model's worker was respawned.
    """

    def __init__(
        self,
        stats: Callable[[], Mapping[str, EngineStats]],
        restarts: Callable[[], Mapping[str, int]],
    ) -> None:
        self._stats = stats
        self._restarts = restarts

    def collect(self) -> Iterable[Metric]:
        """All of them."""
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
    "draft_tokens_total": "Tokens drafted: looked up, or by a draft model or the model's own head.",
    "accepted_draft_tokens_total": "Drafted tokens that were right.",
    "draft_models": "1 if a draft model or the model's own head (MTP) is in use, else 0.",
    "answers_repeat": "1 if seeded answers repeat to the bit, else 0.",
    "disk_reads_total": "Segments of cached prefixes read from disk.",
    "disk_read_bytes_total": "Bytes of cached prefixes read from disk.",
    "disk_tokens_total": "Tokens of prompts that were read from disk instead of computed.",
    "disk_seconds_saved": "Seconds that computing those tokens would take now.",
    "disk_writes_total": "Segments of cached prefixes written to disk.",
    "disk_written_bytes_total": "Bytes of cached prefixes written to disk.",
    "disk_unusable_total": "Damaged or foreign files of cached prefixes that were removed.",
}

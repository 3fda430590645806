"""The generated part of docs/operations.md: every metric that the server has."""

from __future__ import annotations

from server.telemetry.engine_figures import EngineFigures
from server.telemetry.metrics import Metrics
from server.telemetry.server_figures import ServerFigures


def metrics_table() -> str:
    """Every metric of our own as a Markdown table: name, type, meaning."""
    metrics = Metrics(EngineFigures(dict, dict), ServerFigures(list, dict))
    rows = ["| Metric | Type | Meaning |", "| --- | --- | --- |"]
    for metric in sorted(metrics.families(), key=lambda metric: metric.name):
        if metric.name.startswith("dragoman_"):
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            rows.append(f"| `{name}` | {metric.type} | {metric.documentation} |")
    return "\n".join(rows)

"""`dragoman ps`: the models that are loaded now."""

from __future__ import annotations

from typing import Any

from server.cli.console import err, out
from server.cli.formatting import columns, size
from server.cli.health import Url
from server.cli.server_client import local_client
from server.core.settings import load


def ps(url: Url = None) -> None:
    """List the models that a running server has loaded.

    RESERVED is what a model may grow to, which counts against the memory budget. IDLE is the time
    since the last request.
    """
    client = local_client(load(), url, timeout=5.0)
    rows = [("MODEL", "STATE", "KIND", "CONTEXT", "RESERVED", "REQUESTS", "IDLE")]
    rows += [
        _row(entry)
        for entry in client.get("/v1/models")["data"]
        if entry["state"] in {"ready", "loading"}
    ]
    if len(rows) == 1:
        err.print("no model is loaded; each is loaded on its first request", markup=False)
        return
    out.print(columns(rows), markup=False)


def _row(entry: dict[str, Any]) -> tuple[str, str, str, str, str, str, str]:
    idle = entry.get("idle_seconds")
    return (
        entry["id"],
        entry["state"],
        entry.get("kind", "-"),
        str(entry.get("context") or "-"),
        size(entry["memory_bytes"]) if entry.get("memory_bytes") else "-",
        str(entry.get("requests", 0)),
        "-" if idle is None else _duration(idle),
    )


def _duration(seconds: float) -> str:
    """The time in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

"""`dragoman health`: asks a server whether it is ready."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.console import CommandError, out
from server.cli.server_client import local_client
from server.core.settings import load

Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Address of the server (default: from the settings host and port)."
    ),
]


def health(url: Url = None) -> None:
    """Check whether the server is ready: all models named at its start are.

    The exit code is 0 if it is ready, else 1.
    """
    report = local_client(load(), url, timeout=5.0).get("/health")
    if report["status"] != "ok":
        unready = [
            f"{state}: {', '.join(report[state])}"
            for state in ("loading", "failed")
            if report.get(state)
        ]
        raise CommandError(f"not ready ({'; '.join(unready) or report['status']})")
    out.print("ready")

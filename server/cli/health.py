"""`dragoman health`: asks a server whether it is ready."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.console import out
from server.cli.server_client import local_client
from server.core.settings import load

Url = Annotated[
    str | None,
    typer.Option(help="Address of the server (default: from the settings host and port)."),
]


def health(url: Url = None) -> None:
    """Check whether the server is ready.

    The exit code is 0 if it is ready, else 1.
    """
    local_client(load(), url, timeout=5.0).get("/health/ready")
    out.print("ready")

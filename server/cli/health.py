"""`dragoman health`: is the server on this machine ready?"""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.client import local_client
from server.cli.console import out
from server.core.settings import load

Url = Annotated[
    str | None,
    typer.Option(help="Address of the server (default: the one these settings describe)."),
]


def health(url: Url = None) -> None:
    """Say whether the server is ready; the exit code is 0 when it is."""
    local_client(load(), url, timeout=5.0).get("/health/ready")
    out.print("ready")

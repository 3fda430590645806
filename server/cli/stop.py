"""`dragoman stop`: unloads models of a running server."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.console import out
from server.cli.health import Url
from server.cli.known_names import local_names
from server.cli.server_client import local_client
from server.core.settings import load


def stop(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Model ids or aliases.", autocompletion=local_names),
    ],
    url: Url = None,
) -> None:
    """Unload models, which gives their memory back; the server stays.

    Requests that run are answered first. A model is loaded again on its next request.
    """
    client = local_client(load(), url)
    for name in models:
        entry = client.post("/v1/models/unload", {"model": name})
        done = entry["state"] == "unloaded"
        said = "unloaded" if done else "is unloaded when its requests are answered"
        out.print(f"{entry['id']} {said}", markup=False)

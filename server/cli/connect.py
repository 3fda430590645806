"""`dragoman connect`: ready configuration for clients."""

from __future__ import annotations

from string import Template
from typing import Annotated

import typer

from server.cli.client_configurations import CLIENTS
from server.cli.console import CommandError, err, out
from server.cli.health import Url
from server.cli.server_client import ServerError, local_client
from server.core.settings import load, socket_path

_UNKNOWN_CONTEXT = 4096


def connect(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="CLIENT", help="Client to configure; without it, the known clients are listed."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model id (default: the server's first).")
    ] = None,
    url: Url = None,
) -> None:
    """Print the configuration of a client for this server."""
    if name is None:
        out.print("\n".join(CLIENTS))
        return
    if name not in CLIENTS:
        known = ", ".join(CLIENTS)
        raise CommandError(f"unknown client {name!r}; known are: {known}", exit_code=2)
    settings = load()
    client = local_client(settings, url, timeout=5.0)
    if socket_path(client.url) is not None:
        raise CommandError(
            f"clients need an address with a port, and {client.url} is a Unix socket: set host and "
            "port, or name a proxy's address with --url"
        )
    try:
        entries = client.get("/v1/models")["data"]
        served = {entry["id"]: entry for entry in entries}
        served |= {alias: entry for entry in entries for alias in entry.get("aliases", [])}
    except ServerError as error:
        err.print(f"note: {error}", markup=False)
        served = {}
    model = model or next(iter(served), "MODEL")
    context = served.get(model, {}).get("context")
    if not context:
        err.print(
            f"note: the context of {model} is not known before it is loaded; the configuration "
            f"says {_UNKNOWN_CONTEXT} tokens",
            markup=False,
        )
        context = _UNKNOWN_CONTEXT
    configuration = Template(CLIENTS[name]).substitute(
        base=f"{client.url}/v1",
        root=client.url,
        key=settings.api_keys[0] if settings.api_keys else "none",
        model=model,
        context=context,
        output=max(1, context // 4),
    )
    out.print(configuration, end="", markup=False)

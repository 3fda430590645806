"""`dragoman adapters`: the adapters of a running server's models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from server.cli.console import CommandError, out
from server.cli.formatting import columns
from server.cli.health import Url
from server.cli.known_names import local_names
from server.cli.server_client import Client, local_client
from server.core.settings import load


class Action(StrEnum):
    """What to do with adapters."""

    LIST = "list"
    LOAD = "load"
    DROP = "drop"


def adapters(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="list|load|drop",
            help="list: those of MODEL, or of all models. load: serve MODEL with the adapter in "
            "FILE as MODEL:NAME, until the server ends. drop: serve MODEL:NAME no longer.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL[:NAME]",
            help="Model id or alias, and the name of an adapter.",
            autocompletion=local_names,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A GGUF file in the server's models folder."),
    ] = None,
    url: Url = None,
) -> None:
    """List, load or drop the LoRA adapters of a running server.

    Files beside their model are served without this command.
    """
    client = local_client(load(), url)
    match action:
        case Action.LIST:
            _list(client, model)
        case Action.LOAD:
            base, _, name = (model or "").rpartition(":")
            if file is None or not base:
                raise CommandError("give a name and a file: dragoman adapters load MODEL:NAME FILE")
            _load(client, base, name, file)
        case Action.DROP:
            if model is None:
                raise CommandError("name an adapter: dragoman adapters drop MODEL:NAME")
            client.tell("/v1/unload_lora_adapter", {"lora_name": model})
            out.print(f"{model} is not served any more", markup=False)


def _list(client: Client, model: str | None) -> None:
    wanted = None if model is None else client.get(f"/v1/models/{quote(model)}")["id"]
    rows = [("MODEL", "FILE", "STATE")]
    rows += [
        (entry["id"], entry["file"], _state(entry))
        for entry in client.get("/v1/models")["data"]
        if entry.get("parent") and wanted in {None, entry["parent"], entry["id"]}
    ]
    out.print(columns(rows) if len(rows) > 1 else "no adapters", markup=False)


def _state(entry: dict[str, Any]) -> str:
    return f"failed: {entry['reason']}" if entry.get("reason") else str(entry["state"])


def _load(client: Client, base: str, name: str, file: Path) -> None:
    # A path is one of this machine, if there is such a file; else one in the server's folder.
    path = file.absolute() if file.is_file() else file
    body = {"lora_name": name, "lora_path": str(path), "base_model_name": base}
    client.tell("/v1/load_lora_adapter", body)
    out.print(f"{base}:{name} is served", markup=False)

"""`dragoman run`: talks to a model, with all that is missing: its file, and a server."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from server.cli.chat import Raw, System, answer, conversation, talk
from server.cli.console import CommandError
from server.cli.conversation import names_of_models
from server.cli.health import Url
from server.cli.known_names import all_names
from server.cli.local_models import find_local, names_here
from server.cli.options import FOLDERS, takes_sampling, takes_settings
from server.cli.own_server import own_server
from server.cli.pull import fetch
from server.cli.server_client import Client, ServerError, local_client
from server.core.model_names import find_name
from server.core.near_names import closest
from server.core.settings import Settings

# A server looks for new files every two seconds.
_SEEN_SECONDS = 10.0
_POLL_SECONDS = 0.25
# What names of files begin with, and those of models do not.
_PATHS = ("/", "./", "../", "~")


@takes_settings(*FOLDERS)
@takes_sampling
def run(
    settings: Settings,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Model id, alias or file; a name that `dragoman pull` knows.",
            autocompletion=all_names,
        ),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="Print the answer to it instead of chatting."),
    ] = None,
    system: System = None,
    *,
    raw: Raw = False,
    url: Url = None,
    sampling: dict[str, float],
) -> None:
    """Talk to a model, and fetch it first if it is not there.

    This uses the server that runs, or else starts one for the time of the conversation. Text that
    is piped in joins the PROMPT. The exit code is 1 if an answer failed.
    """
    with _serving(settings, model, url) as (client, model_id):
        new = conversation(client, model_id, system=system, raw=raw, sampling=sampling)
        text = _question(prompt)
        if text is None:
            talk(new)
        elif not answer(new, text):
            raise typer.Exit(1)


def _question(prompt: list[str] | None) -> str | None:
    """The PROMPT and what is piped in; None where a conversation is typed."""
    words = " ".join(prompt or [])
    # Where the standard input was closed there is none.
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().strip()
    return "\n\n".join(filter(None, [words, piped])) or None


@contextmanager
def _serving(settings: Settings, name: str, url: str | None) -> Iterator[tuple[Client, str]]:
    """A client of a server that has the model, and the model's id there; raises CommandError."""
    client = local_client(settings, url)
    try:
        names = names_of_models(client)
    except ServerError as error:
        if url is not None or error.status is not None:
            raise
        file = _file(settings, name)
        with own_server(settings, file) as own:
            yield own, _id_of(own, file)
        return
    if (model_id := find_name(name, names)) is not None:
        yield client, model_id
        return
    yield client, _id_of(client, _file(settings, name))


def _file(settings: Settings, name: str) -> Path:
    """The model's file, fetched if need be; raises CommandError."""
    found = find_local(settings, name)
    if found is not None and found.error is not None:
        raise CommandError(f"{found.id} cannot be served: {found.error}")
    if found is not None:
        return Path(found.path)
    if name.startswith(_PATHS):
        raise CommandError(f"there is no file {name}")
    try:
        return fetch(name, settings)
    except CommandError as error:
        near = closest(name, names_here(settings))
        hint = f"\nIn {settings.models_dir} is {near!r}: is it meant?" if near else ""
        raise CommandError(f"{error}{hint}") from error


def _id_of(client: Client, file: Path) -> str:
    """The server's id of the model in ``file``, once it has seen the file."""
    deadline = time.monotonic() + _SEEN_SECONDS
    while True:
        for entry in client.get("/v1/models")["data"]:
            if entry["file"] == file.name:
                return str(entry["id"])
        if time.monotonic() > deadline:
            raise CommandError(
                f"the server at {client.url} does not serve {file}: its models folder is another"
            )
        time.sleep(_POLL_SECONDS)

"""`dragoman batch`: answers a file of requests, on a running server or on one of its own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from server.cli.console import CommandError, err
from server.cli.health import Url
from server.cli.options import FOLDERS, takes_settings
from server.cli.own_server import own_server
from server.cli.server_client import Client, ServerError, local_client
from server.core.settings import Settings

_POLL_SECONDS = 0.5
_SECONDS_BETWEEN_LINES = 10.0
_MARK = "file_sha256"
"""The key in a batch's metadata that tells which file it was made from."""
_GONE = {"failed", "cancelled", "expired"}
_LONGEST_FIRST_LINE = 64 << 20


@takes_settings(*FOLDERS, "host", "port")
def batch(
    settings: Settings,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.jsonl", help="Requests, in the form of OpenAI's batches."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Where the answers go (default: FILE.answers.jsonl)."),
    ] = None,
    url: Url = None,
) -> None:
    """Answer a file of requests, one JSON object a line.

    This uses the server that runs, or else starts one meanwhile. Ctrl-C ends the command and not
    the batch: the same command goes on with it. Lines that failed go to FILE.errors.jsonl, and the
    exit code is 1.
    """
    endpoint = _endpoint(file)
    answers = output or file.with_name(f"{file.stem}.answers.jsonl")
    errors = answers.with_name(f"{file.stem}.errors.jsonl")
    for target in (answers, errors):
        if target.exists():
            raise CommandError(f"{target} is there already: move it away, or choose --output")
    with _serving(settings, url) as client:
        begun = _begun(client, file, endpoint)
        try:
            ended = _followed(client, begun)
        except KeyboardInterrupt:
            err.print(f"{begun['id']} is not lost: the same command goes on with it", markup=False)
            raise
        failed = _fetch(client, ended, answers, errors)
    if failed:
        raise typer.Exit(1)


def _endpoint(file: Path) -> str:
    """What the first line of ``file`` asks; the server checks the others."""
    try:
        with file.open("rb") as opened:
            first = opened.readline(_LONGEST_FIRST_LINE).removeprefix(b"\xef\xbb\xbf")
        endpoint = json.loads(first)["url"]
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        endpoint = None
    if not isinstance(endpoint, str):
        raise CommandError(
            f"{file}: the first line is no request; one looks like "
            '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {…}}'
        )
    return endpoint


@contextmanager
def _serving(settings: Settings, url: str | None) -> Iterator[Client]:
    """A client of the server that runs, or of one that runs meanwhile."""
    client = local_client(settings, url, timeout=60.0)
    try:
        client.get("/health/live")
    except ServerError as error:
        if url is not None or error.status is not None:
            raise
    else:
        yield client
        return
    with own_server(settings) as own:
        yield own


def _begun(client: Client, file: Path, endpoint: str) -> dict[str, Any]:
    """The batch of ``file``: one that was begun before, or a new one."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    newest: list[dict[str, Any]] = client.get("/v1/batches?limit=100")["data"]
    for found in newest:
        same = (found["metadata"] or {}).get(_MARK) == digest
        if same and found["status"] not in _GONE and not _is_fetched(client, found):
            err.print(f"going on with {found['id']}", style="dim", markup=False)
            return found
    uploaded = client.upload("/v1/files", {"purpose": "batch"}, file)
    body = {
        "input_file_id": uploaded["id"],
        "endpoint": endpoint,
        "completion_window": "24h",
        "metadata": {_MARK: digest, "file": file.name[-512:]},
    }
    made: dict[str, Any] = client.post("/v1/batches", body)
    err.print(f"{made['id']} at {client.url}", style="dim", markup=False)
    return made


def _is_fetched(client: Client, found: dict[str, Any]) -> bool:
    """Whether an earlier command has taken the results from the server."""
    if found["status"] != "completed":
        return False
    for file_id in filter(None, (found["output_file_id"], found["error_file_id"])):
        try:
            client.get(f"/v1/files/{file_id}")
        except ServerError as error:
            if error.status != 404:
                raise
            return True
    return False


def _followed(client: Client, found: dict[str, Any]) -> dict[str, Any]:
    """The batch once it has ended."""
    name = found["id"]
    with _progress(name) as show:
        while True:
            counts = found["request_counts"]
            show(counts["completed"] + counts["failed"], counts["total"], found["status"])
            if found["status"] in {"completed", *_GONE}:
                return found
            time.sleep(_POLL_SECONDS)
            found = client.get(f"/v1/batches/{name}")


Show = Callable[[int, int, str], None]


@contextmanager
def _progress(name: str) -> Iterator[Show]:
    """A bar in a terminal; elsewhere a line every few seconds."""
    if not err.is_terminal:
        yield _lines(name)
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
    )
    task = bar.add_task("", total=None)

    def show(done: int, total: int, status: str) -> None:
        bar.update(task, description=status, completed=done, total=total or None)

    with bar:
        yield show


def _lines(name: str) -> Show:
    said, said_at = "", 0.0

    def show(done: int, total: int, status: str) -> None:
        nonlocal said, said_at
        if status == said and time.monotonic() - said_at < _SECONDS_BETWEEN_LINES:
            return
        said, said_at = status, time.monotonic()
        err.print(f"{name}: {status}, {done} of {total}", markup=False)

    return show


def _fetch(client: Client, ended: dict[str, Any], answers: Path, errors: Path) -> int:
    """Write the results, and remove them from the server; returns the number of failed lines."""
    counts = ended["request_counts"]
    for file_id, target, count in (
        (ended["output_file_id"], answers, counts["completed"]),
        (ended["error_file_id"], errors, counts["failed"]),
    ):
        if file_id is not None:
            client.save(f"/v1/files/{file_id}/content", target)
            err.print(f"{target}: {count} lines", markup=False)
    for file_id in (ended["output_file_id"], ended["error_file_id"], ended["input_file_id"]):
        if file_id is not None:
            client.delete(f"/v1/files/{file_id}")
    if ended["errors"] is not None:
        problems = "\n".join(_problem(each) for each in ended["errors"]["data"])
        raise CommandError(f"the batch has failed:\n{problems}")
    if ended["status"] != "completed":
        raise CommandError(f"the batch is {ended['status']}")
    failed: int = counts["failed"]
    return failed


def _problem(error: dict[str, Any]) -> str:
    place = "the file" if error["line"] is None else f"line {error['line']}"
    return f"{place}: {error['message']}"

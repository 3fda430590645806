"""`dragoman pull`: fetches models and shows the progress."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from server.cli.console import CommandError, err, out
from server.cli.formatting import columns, size
from server.cli.known_names import all_names
from server.cli.options import FOLDERS, takes_settings
from server.core.settings import Settings
from server.library.pull.catalog import read_catalog
from server.library.pull.download import PullError, PullProgress, Stage
from server.library.pull.fetch import pull

_SECONDS_BETWEEN_LINES = 5.0


@takes_settings(*FOLDERS)
def pull_models(
    settings: Settings,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Names from the catalog, or models of the Hugging Face Hub: hf:owner/repo, "
            "hf:owner/repo:QUANT or hf:owner/repo/file.gguf.",
            autocompletion=all_names,
        ),
    ] = None,
) -> None:
    """Fetch models into the models folder.

    Complete files are not fetched again, and an interrupted download goes on where it stopped. Of
    a repository on the hub, Q4_K_M is fetched if no QUANT is stated, and the file with which the
    model sees images comes along. Without a NAME, the catalog is printed.
    """
    if not names:
        rows = [("NAME", "KIND", "SIZE", "LICENCE", "DESCRIPTION")]
        for name, entry in read_catalog().items():
            rows.append((name, entry.kind, size(entry.bytes), entry.licence, entry.description))
        out.print(columns(rows), markup=False)
        return
    for name in names:
        out.print(str(fetch(name, settings)), markup=False)


def fetch(name: str, settings: Settings) -> Path:
    """Pull ``name`` and show the progress; raises CommandError."""
    show = _bar if err.is_terminal else _lines
    try:
        with show(name) as progress:
            return pull(name, settings.models_dir, settings.cache_dir, progress)
    except PullError as error:
        raise CommandError(str(error)) from error


@contextmanager
def _bar(name: str) -> Iterator[PullProgress]:
    """A progress bar with speed and time left."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=err,
    )
    tasks = {}

    def progress(done: int, total: int, stage: Stage) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(f"{name}: {stage}")
        bar.update(tasks[stage], completed=done, total=total)

    with bar:
        yield progress


@contextmanager
def _lines(name: str) -> Iterator[PullProgress]:
    """Lines for a log: at the start and end of each stage, and every few seconds."""
    began: dict[Stage, tuple[float, int]] = {}
    last = 0.0

    def progress(done: int, total: int, stage: Stage) -> None:
        nonlocal last
        now = time.monotonic()
        if stage in began and done < total and now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        start, already = began.setdefault(stage, (now, done))
        speed = (done - already) / (now - start) if now > start else 0.0
        pace = f", {size(speed)}/s" if speed else ""
        left = f", {(total - done) / speed:.0f} s left" if speed and done < total else ""
        err.print(f"{name}: {stage} {size(done)} of {size(total)}{pace}{left}", markup=False)

    yield progress

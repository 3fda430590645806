"""`dragoman cache`: the cached prefixes and encoded images on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from server.cli.console import out
from server.cli.formatting import columns, size
from server.cli.options import takes_settings
from server.core.prefix_folder import model_of, segment_files, sweep
from server.core.settings import Settings


class Action(StrEnum):
    """What to do with them."""

    INFO = "info"
    CLEAR = "clear"


@takes_settings("config", "cache_dir", "prefix_disk_dir")
def cache(
    settings: Settings,
    action: Annotated[
        Action,
        typer.Argument(
            metavar="info|clear", help="info: count what is there. clear: remove all of it."
        ),
    ],
) -> None:
    """Show or remove the cached prompts and encoded images that lie on disk.

    A server may run meanwhile; it computes again what is gone.
    """
    folder = settings.prefixes_dir
    if action is Action.CLEAR:
        count = len(segment_files(folder))
        sweep(folder, most_bytes=-1, most_age=0.0, abandoned=0.0)
        out.print(f"removed {_files(count)} from {folder}", markup=False)
        return
    files = segment_files(folder)
    rows = [
        ("folder", str(folder)),
        ("models and settings", str(len({file.path.parent for file in files}))),
        ("files", str(len(files))),
        ("size", size(sum(file.size for file in files))),
        ("last used", _time(files[0].used) if files else "-"),
        ("longest unused", _time(files[-1].used) if files else "-"),
    ]
    for model in sorted({file.path.parent for file in files}):
        sizes = [file.size for file in files if file.path.parent == model]
        rows.append((model_of(model), f"{size(sum(sizes))} in {_files(len(sizes))}"))
    out.print(columns(rows), markup=False)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

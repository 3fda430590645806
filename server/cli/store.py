"""`dragoman store`: what is stored of responses and conversations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from server.cli.console import CommandError, out
from server.cli.formatting import columns, size
from server.cli.options import takes_settings
from server.core.settings import Settings
from server.store.kinds import Limits
from server.store.store import Store

if TYPE_CHECKING:
    from server.store.records import Records

_SQLITE = "sqlite:///"


class Action(StrEnum):
    """What to do with the store."""

    INFO = "info"
    PRUNE = "prune"
    EXPORT = "export"


@takes_settings("config", "store_url", "store_max_bytes", "store_max_days")
def store(
    settings: Settings,
    action: Annotated[
        Action,
        typer.Argument(
            metavar="info|prune|export",
            help="info: count what is stored. prune: remove what is too old or too much now. "
            "export: write everything to standard output, one JSON object a line.",
        ),
    ],
) -> None:
    """Show, prune or export the stored responses and conversations.

    A server may run meanwhile.
    """
    with _opened(settings) as opened:
        match action:
            case Action.INFO:
                _print_info(opened)
            case Action.PRUNE:
                swept = opened.sweep()
                out.print(
                    f"removed {swept.chains} chains of responses and {swept.conversations} "
                    f"conversations: {size(swept.bytes)}"
                )
            case Action.EXPORT:
                _print_export(opened)


@contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    """The store, which must exist; raises CommandError."""
    url = settings.store_url
    if url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists():
        raise CommandError(f"nothing is stored: there is no {url.removeprefix(_SQLITE)}")
    limits = Limits(bytes=settings.store_max_bytes, seconds=settings.store_max_days * 86_400)
    opened = Store(url, limits)
    try:
        yield opened
    finally:
        opened.close_now()


def _print_info(opened: Store) -> None:
    info = opened.transact(lambda records: records.upkeep.info(), writes=False)
    rows = [
        ("responses", f"{info.responses} ({info.running} running)"),
        ("conversations", str(info.conversations)),
        ("items", str(info.items)),
        ("events", str(info.events)),
        ("size", size(info.bytes)),
        ("files", f"{info.files} ({size(info.file_bytes)})"),
        ("batches", str(info.batches)),
        ("oldest response", _time(info.oldest)),
        ("newest response", _time(info.newest)),
        ("schema version", str(info.version)),
    ]
    out.print(columns(rows), markup=False)


def _time(seconds: int | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _print_export(opened: Store) -> None:
    try:
        if failure := opened.transact(_export, writes=False):
            raise failure
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # The command ends quietly: its reader has enough.
    except OSError as error:
        raise CommandError(f"standard output cannot be written: {error.strerror}") from error


def _export(records: Records) -> OSError | None:
    """Returns what kept it from writing: raised here, it would count as a failure of the store."""
    for record in records.upkeep.export():
        line = msgspec.json.encode(record) + b"\n"
        try:
            sys.stdout.buffer.write(line)
        except OSError as error:
            return error
    return None

"""The `dragoman` command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from server.core.imports import without_collections

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in ``arguments``; raises SystemExit with its exit code."""
    # The imports take a part of a second, in which Ctrl-C ends the process without a traceback.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    words = sys.argv[1:] if arguments is None else arguments
    with _worker_ahead() if words[:1] == ["serve"] and "--help" not in words else nullcontext():
        with without_collections():
            from server.cli.commands import main as run  # noqa: PLC0415

        signal.signal(signal.SIGINT, handler)
        run(arguments)


def _worker_ahead() -> AbstractContextManager[None]:
    """A worker that imports what it needs while this process does, which takes as long."""
    from server.worker.supervise.launch import worker_ahead  # noqa: PLC0415

    return worker_ahead()

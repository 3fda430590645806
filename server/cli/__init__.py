"""The `dragoman` command."""

from __future__ import annotations

import signal
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in ``arguments``; raises SystemExit with its exit code."""
    # The imports take a part of a second, in which Ctrl-C ends the process without a traceback.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from server.cli.commands import main as run  # noqa: PLC0415

    signal.signal(signal.SIGINT, handler)
    run(arguments)

"""`dragoman version`."""

from __future__ import annotations

from server import __version__
from server.cli.console import out


def version() -> None:
    """Print the version."""
    out.print(__version__)

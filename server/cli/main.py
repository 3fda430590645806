"""The commands, and what a failed one says."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from server import __version__
from server.cli.chat import chat
from server.cli.connect import connect
from server.cli.console import CommandError, err, out
from server.cli.health import health
from server.cli.list import list_models
from server.cli.pull import pull_models
from server.cli.render import render
from server.cli.rm import rm
from server.cli.serve import serve
from server.cli.show import show
from server.config import ConfigError
from server.errors import DragomanError

app = typer.Typer(
    help="A local OpenAI-compatible inference server for GGUF models, base and instruct.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)
app.command("pull")(pull_models)
app.command("list")(list_models)
app.command()(show)
app.command()(rm)
app.command()(render)
app.command()(chat)
app.command()(connect)
app.command()(health)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in ``arguments``; its exit code comes as SystemExit."""
    try:
        app(args=arguments, prog_name="dragoman")
    except ConfigError as error:
        _fail(str(error), 2)
    except CommandError as error:
        _fail(str(error), error.exit_code)
    except DragomanError as error:
        _fail(error.message, 1)


def _fail(message: str, exit_code: int) -> None:
    err.print(f"dragoman: {message}", style="red", markup=False)
    sys.exit(exit_code)

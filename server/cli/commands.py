"""The commands, and how they report errors."""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from server import __version__
from server.cli.console import CommandError, err, out
from server.cli.help import Command
from server.core.errors import DragomanError
from server.core.settings_file import ConfigError

# Only the command that runs is imported: `health` runs every few seconds in a container.
COMMANDS = {
    "serve": "server.cli.serve:serve",
    "run": "server.cli.run:run",
    "pull": "server.cli.pull:pull_models",
    "list": "server.cli.list:list_models",
    "show": "server.cli.show:show",
    "cp": "server.cli.cp:cp",
    "rm": "server.cli.rm:rm",
    "search": "server.cli.search:search",
    "ps": "server.cli.ps:ps",
    "stop": "server.cli.stop:stop",
    "adapters": "server.cli.adapters:adapters",
    "cache": "server.cli.cache:cache",
    "chat": "server.cli.chat:chat",
    "render": "server.cli.render:render",
    "parse": "server.cli.parse:parse",
    "keys": "server.cli.key_file:keys",
    "store": "server.cli.store:store",
    "connect": "server.cli.connect:connect",
    "batch": "server.cli.batch_file:batch",
    "cluster": "server.cli.cluster:cluster",
    "bench": "server.cli.bench:bench",
    "health": "server.cli.health:health",
    "doctor": "server.cli.doctor:doctor",
    "kernels": "server.cli.kernels:kernels",
    "service": "server.cli.service:service",
    "completion": "server.cli.completion:completion",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in ``arguments``; raises SystemExit with its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if os.environ.get("_DRAGOMAN_COMPLETE"):
        from server.cli.completion import words_to_complete  # noqa: PLC0415

        # All but a finished word may still become any command.
        words = words_to_complete()
        application(words[0] if len(words) > 1 else "")(args=[], prog_name="dragoman")
    try:
        words = _as_ours(words)
        application(words[0] if words else "")(args=words, prog_name="dragoman")
    except ConfigError as error:
        _fail(str(error), 2)
    except CommandError as error:
        _fail(str(error), error.exit_code)
    except DragomanError as error:
        _fail(error.message, 1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _as_ours(words: list[str]) -> list[str]:
    """What those who know Ollama type, in our words. Raises CommandError where there are none."""
    match words:
        case ["ls", *rest]:
            return ["list", *rest]
        case ["help", *rest]:
            return [*rest[:1], "--help"]
        case ["-v"]:
            return ["--version"]
        case ["create", *_]:
            raise CommandError(
                "there is nothing to create: put the GGUF file into the models folder, and what "
                "concerns it alone into a TOML file beside it (models/README.md)",
                exit_code=2,
            )
    return words


def application(asked: str = "") -> typer.Typer:
    """The application with the command ``asked`` alone, or with all if there is no such command."""
    app = typer.Typer(
        help="A local inference server for GGUF models that speaks OpenAI's API and Anthropic's.",
        callback=_options,
        no_args_is_help=True,
        invoke_without_command=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    for name in [asked] if asked in COMMANDS else COMMANDS:
        app.command(name, cls=Command)(pkgutil.resolve_name(COMMANDS[name]))
    return app


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        out.print(__version__, markup=False, highlight=False)
        raise typer.Exit


def _fail(message: str, exit_code: int) -> None:
    err.print(f"dragoman: {message}", style="red", markup=False)
    sys.exit(exit_code)

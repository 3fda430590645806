"""`dragoman completion`: lets a shell complete commands, options and names of models."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer
from typer._completion_classes import completion_init
from typer._completion_shared import get_completion_script

from server.cli.console import out

# The shell states in this variable what it wants to know.
_VARIABLE = "_DRAGOMAN_COMPLETE"


class Shell(StrEnum):
    """Shells that can be told."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="The shell.")],
) -> None:
    """Print a script with which a shell completes commands, options and models.

    For bash and zsh: eval "$(dragoman completion bash)", for fish: dragoman completion fish |
    source; in the shell's own start file it holds from then on.
    """
    script = get_completion_script(prog_name="dragoman", complete_var=_VARIABLE, shell=shell.value)
    out.print(script, markup=False)


def words_to_complete() -> list[str]:
    """The words that a shell asks about, without the command's own name.

    The last one may be unfinished.
    """
    completion_init()
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split(" ")[1:]

"""What a shell completes, and what help looks like."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup, TyperOption

from server.cli.commands import COMMANDS, application
from tests.unit.cli.conftest import Run
from tests.unit.library.random_models import write_model

ROOT = Path(__file__).parents[3]


def complete(folder: Path, line: str, shell: str = "bash") -> list[str]:
    """What `shell` is told after ``line``."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_DRAGOMAN_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    if shell == "bash":
        environment |= {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    else:
        environment["_TYPER_COMPLETE_ARGS"] = line
    done = subprocess.run(
        [sys.executable, "-m", "server.cli"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.process
def test_commands_options_and_models_are_completed(folder: Path) -> None:
    write_model(folder / "models/Mine-Q4.gguf")
    assert {"ps", "pull", "parse"} <= set(complete(folder, "dragoman p"))
    assert "--models-dir" in complete(folder, "dragoman list --")
    assert complete(folder, "dragoman rm Mi") == ["Mine-Q4"]
    assert complete(folder, "dragoman run sm") == ["smollm2-135m-instruct"]
    assert any("Mine-Q4" in line for line in complete(folder, "dragoman show M", "zsh"))
    assert "Mine-Q4" in complete(folder, "dragoman show M", "fish")


@pytest.mark.process
def test_bash_completes_with_the_script(run: Run, folder: Path) -> None:
    write_model(folder / "models/Mine-Q4.gguf")
    (folder / "dragoman").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m server.cli "$@"\n')
    (folder / "dragoman").chmod(0o755)
    script = run("completion", "bash").out
    ask = (
        "COMP_WORDS=(./dragoman stop Mi); COMP_CWORD=2; _dragoman_completion ./dragoman; "
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "Mine-Q4\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_of_theirs(run: Run, shell: str) -> None:
    script = run("completion", shell).out
    assert f"_DRAGOMAN_COMPLETE=complete_{shell}" in script


def test_the_list_of_commands_has_whole_sentences(run: Run) -> None:
    _, _, listed = run("--help").out.partition("Commands:\n")
    rows = re.split(r"\n(?=  \w)", listed.strip("\n"))
    assert [row.split()[0] for row in rows] == [*COMMANDS]
    assert [row for row in rows if not row.endswith(".") or "..." in row] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_to_write_and_no_types(run: Run, command: str) -> None:
    text = run(command, "--help").out
    assert "<" not in text
    assert "Show this message and exit." in text
    usage = text.split("\n\n")[0]
    assert "{" not in usage
    assert "[[" not in usage
    assert usage.startswith(f"Usage: dragoman {command} [OPTIONS]")
    found = typer.main.get_command(application(command))
    assert isinstance(found, TyperGroup)
    options = [each for each in found.commands[command].params if isinstance(each, TyperOption)]
    for option in options:
        names = f"{option.opts[0]} / " if option.secondary_opts else f"{option.opts[0]}\\b"
        wanted = names if option.is_flag else rf"{option.opts[0]} [^ ]+(?:  |$)"
        assert re.search(rf"^  {wanted}", text, re.MULTILINE), option.opts[0]

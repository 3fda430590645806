"""Flags come from the settings, and so do the messages about them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from server.cli.options import EVERY_SETTING, GROUPS, takes_settings
from server.core.settings import Settings, flag
from tests.unit.cli.conftest import Run


@pytest.fixture
def received() -> list[tuple[Settings, str]]:
    return []


@pytest.fixture
def app(received: list[tuple[Settings, str]]) -> typer.Typer:
    @takes_settings(*EVERY_SETTING)
    def command(settings: Settings, *, own: str = "default") -> None:
        received.append((settings, own))

    app = typer.Typer()
    app.command()(command)
    return app


def test_every_setting_has_a_flag(app: typer.Typer) -> None:
    names = set(inspect.signature(app.registered_commands[0].callback or print).parameters)
    assert names == {*Settings.model_fields, "own"}


def test_flags_become_settings_beside_the_commands_own(
    app: typer.Typer, received: list[tuple[Settings, str]]
) -> None:
    arguments = ["a.gguf", "--port", "0", "--api-key", "x", "--api-key", "y", "--no-guard"]
    result = CliRunner().invoke(app, [*arguments, "--own", "mine", "--memory-budget", "75%"])
    assert result.exit_code == 0
    settings, own = received[0]
    assert [str(path) for path in settings.models] == ["a.gguf"]
    assert (settings.port, settings.api_keys, settings.guard) == (0, ["x", "y"], False)
    assert (settings.memory_budget, own) == ("75%", "mine")


def test_a_flag_switches_back_on_what_the_environment_switched_off(
    app: typer.Typer,
    received: list[tuple[Settings, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DRAGOMAN_GUARD", "false")
    CliRunner().invoke(app, [])
    CliRunner().invoke(app, ["--guard"])
    assert [settings.guard for settings, _ in received] == [False, True]


@pytest.mark.process
def test_a_wrong_flag_is_a_usage_error_that_names_it(run: Run) -> None:
    result = run("serve", "--parallel", "257")
    assert result.exit_code == 2
    assert "--parallel: " in result.err


def test_help_tells_each_flag_and_its_default(run: Run) -> None:
    text = run("serve", "--help").out
    for name in EVERY_SETTING:
        if name != "models":
            assert flag(name) in text
    assert "(default: 8000)" in " ".join(text.split())


def test_every_setting_stands_under_one_heading_of_the_help(run: Run) -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(["models", *grouped]) == sorted(EVERY_SETTING)
    lines = run("serve", "--help").out.splitlines()
    headings = [line.rstrip(":") for line in lines if line.endswith(":") and line[0] != " "]
    assert headings == ["Arguments", *GROUPS, "Options"]
    below = lines[lines.index("Address:") : lines.index("Access:")]
    assert [line.split()[0] for line in below if line.startswith("  --")] == [
        flag(name) for name in GROUPS["Address"]
    ]
    assert "Models:" not in run("list", "--help").out
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert "; ".join(GROUPS).lower() in " ".join(page.split())


def test_an_unknown_key_in_the_file_ends_every_command(run: Run, folder: object) -> None:
    with open("dragoman.toml", "w") as file:  # noqa: PTH123 the working directory is the point
        file.write("colour = 'green'")
    result = run("list")
    assert result.exit_code == 2
    assert "dragoman.toml: unknown key 'colour'" in result.err


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAGOMAN_PROT", "9000")
    monkeypatch.setenv("DRAGOMAN_API_KEY", "mine")
    result = run("list")
    assert result.exit_code == 0
    assert (
        "DRAGOMAN_PROT is no setting and has no effect; did you mean DRAGOMAN_PORT?" in result.err
    )
    assert "DRAGOMAN_API_KEY is no setting" in result.err
    # Beside the server's keys it is the key that clients send.
    monkeypatch.setenv("DRAGOMAN_API_KEYS", "mine,other")
    assert "DRAGOMAN_API_KEY " not in run("list").err

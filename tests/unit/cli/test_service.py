"""The service of the user's own, on systemd and launchd."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.process

MANAGER = '#!/bin/sh\necho "$0 $@" >> "$LOG"\necho "state of $@"\n[ ! -e "$LOG.fail" ]\n'


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the service managers, stand-ins, were asked; they fail once a file says so."""
    for name in ("systemctl", "launchctl"):
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(MANAGER)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(folder / "log"))
    monkeypatch.setenv("HOME", str(folder))
    return folder / "log"


def test_on_linux_systemd_serves_and_stops_to(
    run: Run, folder: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    (folder / "100% mine.toml").write_text("")
    unit = folder / "config/systemd/user/dragoman.service"
    result = run("service", "install", "--config", folder / "100% mine.toml")
    assert result.exit_code == 0, result.err
    assert str(unit) in result.out
    calls = [line.split("/systemctl ")[1] for line in asked.read_text().splitlines()]
    assert calls == ["--user daemon-reload", "--user enable --now dragoman"]
    text = unit.read_text()
    assert "Type=notify\n" in text
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in text
    assert f"-P -m server.cli serve --config '{folder}/100%% mine.toml'\n" in text
    assert "state of --user --no-pager status dragoman" in run("service", "status").out
    assert run("service", "uninstall").exit_code == 0
    assert not unit.exists()
    assert "not installed" in run("service", "uninstall").err
    assert "dragoman service install" in run("service", "status").err


def test_the_unit_is_one_that_systemd_takes(
    run: Run, folder: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("this machine has no systemd-analyze")
    monkeypatch.setattr("sys.platform", "linux")
    run("service", "install")
    unit = folder / "config/systemd/user/dragoman.service"
    done = subprocess.run(
        [analyze, "--user", "--man=no", "--recursive-errors=no", "verify", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "dragoman.service" not in done.stderr, done.stderr


def test_a_manager_that_refuses_leaves_nothing_behind(
    run: Run, folder: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    asked.with_name("log.fail").touch()
    result = run("service", "install")
    assert result.exit_code == 1
    assert "systemctl --user daemon-reload: state of" in result.err
    assert not (folder / "config/systemd/user/dragoman.service").exists()
    monkeypatch.setenv("PATH", str(folder))
    assert "this machine has no systemctl" in run("service", "install").err


def test_on_macos_launchd_serves_and_stops_to(
    run: Run, folder: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    agent = folder / "Library/LaunchAgents/dragoman.plist"
    assert run("service", "install").exit_code == 0
    described = plistlib.loads(agent.read_bytes())
    assert described["ProgramArguments"][1:] == ["-P", "-m", "server.cli", "serve"]
    assert described["RunAtLoad"] is True
    assert "state of print gui/" in run("service", "status").out
    assert run("service", "uninstall").exit_code == 0
    assert not agent.exists()
    assert [line.split("/launchctl ")[1].split()[0] for line in asked.read_text().splitlines()] == [
        "bootout",
        "bootstrap",
        "print",
        "bootout",
    ]

"""`dragoman service`: serves from log-in on, by systemd or launchd."""

from __future__ import annotations

import os
import plistlib
import shlex
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from server.cli.console import CommandError, out
from server.cli.options import takes_settings
from server.core.settings import Settings

_NAME = "dragoman"

# The watchdog's time is a choice: a process whose event loop stands still so long serves nobody.
# A little more than the setting drain_seconds passes until systemd kills.
_UNIT = """\
[Unit]
Description=dragoman, a local inference server
After=network.target

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=60
KillMode=mixed
TimeoutStopSec=30
Restart=on-failure
RestartSec=2

[Install]
WantedBy=default.target
"""


class Action(StrEnum):
    """What to do with the service."""

    INSTALL = "install"
    UNINSTALL = "uninstall"
    STATUS = "status"


@takes_settings("config")
def service(
    settings: Settings,
    action: Annotated[
        Action,
        typer.Argument(
            metavar="install|uninstall|status",
            help="install: serve from now on and from each log-in. uninstall: no longer. "
            "status: what the service manager says.",
        ),
    ],
) -> None:
    """Serve in the background as this user, by systemd (Linux) or launchd (macOS).

    Settings come from the TOML file; variables of this shell are not passed on.
    """
    manager = _Launchd() if sys.platform == "darwin" else _Systemd()
    match action:
        case Action.INSTALL:
            manager.install(_command(settings))
            out.print(f"installed {manager.file}", markup=False)
            out.print(f"its log: {manager.log}", markup=False)
        case Action.UNINSTALL:
            if not manager.file.exists():
                raise CommandError(f"the service is not installed: there is no {manager.file}")
            manager.uninstall()
            out.print(f"removed {manager.file}", markup=False)
        case Action.STATUS:
            if not manager.file.exists():
                raise CommandError("the service is not installed: dragoman service install")
            out.print(manager.status(), markup=False)


def _command(settings: Settings) -> list[str]:
    command = [sys.executable, "-P", "-m", "server.cli", "serve"]
    return command if settings.config is None else [*command, "--config", str(settings.config)]


class _Systemd:
    """systemd's manager of this user's services."""

    log = f"journalctl --user --unit {_NAME}"

    def __init__(self) -> None:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.file = folder / "systemd" / "user" / f"{_NAME}.service"

    def install(self, command: list[str]) -> None:
        """Write the unit and start it; raises CommandError."""
        # systemd expands % in units and $ in commands.
        quoted = shlex.join(command).replace("%", "%%").replace("$", "$$")
        _write(self.file, _UNIT.format(command=quoted).encode())
        try:
            _run("systemctl", "--user", "daemon-reload")
            _run("systemctl", "--user", "enable", "--now", _NAME)
        except CommandError:
            self.file.unlink()
            raise

    def uninstall(self) -> None:
        """Stop the service and remove the unit; raises CommandError."""
        _run("systemctl", "--user", "disable", "--now", _NAME)
        self.file.unlink()
        _run("systemctl", "--user", "daemon-reload")

    def status(self) -> str:
        """What systemd says of it."""
        return _run("systemctl", "--user", "--no-pager", "status", _NAME, may_fail=True)


class _Launchd:
    """launchd's manager of this user's agents."""

    def __init__(self) -> None:
        self.file = Path.home() / "Library" / "LaunchAgents" / f"{_NAME}.plist"
        self.log = Path.home() / "Library" / "Logs" / f"{_NAME}.log"
        self._domain = f"gui/{os.getuid()}"

    def install(self, command: list[str]) -> None:
        """Write the agent and start it; raises CommandError."""
        agent = {
            "Label": _NAME,
            "ProgramArguments": command,
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "StandardOutPath": str(self.log),
            "StandardErrorPath": str(self.log),
        }
        self.log.parent.mkdir(parents=True, exist_ok=True)
        _write(self.file, plistlib.dumps(agent))
        _run("launchctl", "bootout", f"{self._domain}/{_NAME}", may_fail=True)
        _run("launchctl", "bootstrap", self._domain, str(self.file))

    def uninstall(self) -> None:
        """Stop the service and remove the agent; raises CommandError."""
        _run("launchctl", "bootout", f"{self._domain}/{_NAME}")
        self.file.unlink()

    def status(self) -> str:
        """What launchd says of it."""
        return _run("launchctl", "print", f"{self._domain}/{_NAME}", may_fail=True)


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}") from error


def _run(*command: str, may_fail: bool = False) -> str:
    """What the command prints; raises CommandError if it is not there, or fails and may not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError as error:
        raise CommandError(
            f"this machine has no {command[0]}; start dragoman by other means"
        ) from error
    if done.returncode and not may_fail:
        raise CommandError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return (done.stdout or done.stderr).strip()

"""The processes of a cluster on one machine: started, found again, and ended.

They run in the background, each with a log file in the folder of the machine. A file there names
them, so that later commands find them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from server.core.process_name import has_ended, process_name
from server.core.settings_file import ConfigError

RAY, FRONT = "ray", "front"

_END_SECONDS = 60.0
# Lines of a log that say why a process has ended. A choice.
_LAST_WORDS = 5
_POLL_SECONDS = 0.1
# Ray's object store holds nothing of ours; this is the least it takes.
_OBJECT_STORE_BYTES = 80 << 20
# A node agent that answers none of five questions in a row is given up by the head: one on a
# machine that is cut off after 20 s. Ray's own 10 and 3 seconds make that 65, and all that time
# Serve waits for a replica that was about to start there. A choice: a busy machine answers in less.
GIVING_UP = {"RAY_health_check_timeout_ms": "3000", "RAY_health_check_period_ms": "1000"}
"""What Ray's head needs to know to give a machine up soon."""
# How long node agents, and with them replicas, live on while the head is down. A choice: a machine
# is started again in less.
_HEAD_AWAY_SECONDS = 600


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A process in the background: its id, and the name that no other one has."""

    pid: int
    name: str


class Machine(msgspec.Struct, kw_only=True):
    """What runs on this machine.

    Attributes:
        head: Address and port of Ray's head.
        token: File of the cluster's token.
        members_port: On the head, where replicas report.
        front: On the head, the address of the front.
        processes: What runs here, by what it is.
    """

    head: str
    token: str
    members_port: int | None = None
    front: str | None = None
    processes: dict[str, Running] = {}


class MachineFolder:
    """The folder of this machine's part in a cluster: token, logs, and what runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "machine.json"

    @property
    def token(self) -> Path:
        """The file of the cluster's token, on the head."""
        return self.folder / "token"

    @property
    def rocksdb(self) -> Path:
        """Where Ray's head keeps what it must know when it is started again."""
        return self.folder / "ray-head"

    def log(self, what: str) -> Path:
        """The log of one of the processes."""
        return self.folder / f"{what}.log"

    def read(self) -> Machine | None:
        """What was started here, if anything was."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Machine)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"{self._file}: {error}") from error

    def write(self, machine: Machine) -> None:
        """Remember what runs here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file.write_bytes(msgspec.json.encode(machine))

    def forget(self) -> None:
        """Nothing runs here."""
        self._file.unlink(missing_ok=True)

    def start(self, what: str, command: Sequence[str], environment: Mapping[str, str]) -> Running:
        """Start a process in the background."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log(what).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(pid=process.pid, name=process_name(process.pid))

    def last_words(self, what: str) -> str:
        """The end of a process's log, without the frames of tracebacks."""
        try:
            said = self.log(what).read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(without_frames(said)[-_LAST_WORDS:])


def without_frames(text: str) -> list[str]:
    """The lines of a text that has tracebacks, without the frames of these."""
    lines = text.splitlines()
    return [line for line in lines if line.strip() and not line.startswith((" ", "Traceback"))]


def lives(running: Running) -> bool:
    """Whether the process runs."""
    # One that this process started stays a zombie until it is waited for.
    return not has_ended(running.name)


def end(running: Running) -> None:
    """End the process, by force if it takes too long; returns when it has ended."""
    deadline = time.monotonic() + _END_SECONDS
    number = signal.SIGTERM
    while lives(running):
        os.kill(running.pid, number)
        while lives(running) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        number, deadline = signal.SIGKILL, time.monotonic() + _END_SECONDS


def ray_program() -> str:
    """The command ``ray`` of this environment; raises ConfigError if there is none."""
    beside = Path(sys.executable).with_name("ray")
    found = str(beside) if beside.exists() else shutil.which("ray")
    if found is None:
        raise ConfigError("a cluster needs an extra: pip install 'dragoman[cluster]'")
    return found


def ray_environment(token: Path) -> dict[str, str]:
    """What all of Ray's processes need to know: the token, and to tell nobody outside."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_START_HOOK": "server.cluster.on_ray.start_hook.closed",
        # Ray's own metrics have a port without a key on every machine; ours are the front's.
        "RAY_enable_metrics_collection": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(_HEAD_AWAY_SECONDS),
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }


def head_environment(rocksdb: Path) -> dict[str, str]:
    """What Ray's head needs to know beside that.

    To remember the cluster over a restart, and when to give up a machine.
    """
    return {
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(rocksdb),
        **GIVING_UP,
    }


def ray_command(
    *,
    address: str | None,
    own_address: str | None,
    port: int,
    resources: str | None,
    temporary: Path,
) -> list[str]:
    """The command that runs Ray on this machine until it is ended.

    Args:
        address: Address and port of the head; None: this is the head.
        own_address: This machine's address in the network of the cluster; None: Ray finds it out.
        port: The head's port.
        resources: What replicas may claim here beside cores and memory, as JSON.
        temporary: Folder for sockets and logs of Ray.
    """
    command = [ray_program(), "start", "--block", "--disable-usage-stats", "--log-style=record"]
    if address is None:
        command += ["--head", f"--port={port}", "--include-dashboard=false"]
    else:
        command += [f"--address={address}"]
    if own_address is not None:
        command += [f"--node-ip-address={own_address}"]
    if resources is not None:
        command += [f"--resources={resources}"]
    command += [
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        "--dashboard-agent-listen-port=0",
        "--include-log-monitor=false",
        # Else Ray takes the ports from 10002 to 19999 for its own, those of the front among them.
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--temp-dir={temporary}",
    ]
    return command

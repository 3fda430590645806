"""A real cluster on this machine, by the command: a head, and node agents beside it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from server.cluster.joined import AGENT_RUNS
from tests.e2e.server import CHECKOUT, free_port

MODEL = "tiny"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
"""That of the model, which fits any conversation."""
# Far more than a busy machine needs: nothing here is about speed.
WAIT_SECONDS = 240


def address() -> str | None:
    """This machine's address in a network, if it is in one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        found: str = probe.getsockname()[0]
    return None if found.startswith("127.") else found


def until(condition: Callable[[], Any], *, seconds: float = WAIT_SECONDS) -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
    return found


class Cluster:
    """A cluster whose head and further machines have a folder each.

    Attributes:
        models: The folder of models that `write` names.
    """

    def __init__(
        self, folder: Path, own_address: str, models: Path, front_host: str = "127.0.0.1"
    ) -> None:
        self.folder = folder
        self.address = own_address
        self.ports = {name: free_port() for name in ("port", "members_port")}
        self.front_port = free_port()
        self.front_host = front_host
        self.url = f"http://{front_host}:{self.front_port}"
        # What runs a command as this machine.
        self.prefix: dict[str, list[str]] = {}
        self.file = folder / "cluster.toml"
        self.models = models
        self._joined: list[str] = []

    def write(
        self,
        *,
        replicas: str = "2",
        more: str = "",
        models: Sequence[str] = (MODEL,),
        store: str | None = None,
    ) -> None:
        """Write `cluster.toml`; ``store`` is the URL of a database."""
        keeping = "store = false\nfiles = false\n"
        if store is not None:
            keeping = f'store_url = "{store}"\nfiles_dir = "{self.folder}/files"\n'
        ports = "\n".join(f"{name} = {port}" for name, port in self.ports.items())
        self.file.write_text(
            f'[head]\naddress = "{self.address}"\n{ports}\n'
            f'[front]\nport = {self.front_port}\nhost = "{self.front_host}"\n'
            "allow_unauthenticated = true\n"
            f'[settings]\n{keeping}models_dir = "{self.models}"\n'
            f'prefix_disk = "0"\ncache_dir = "{self.folder}/cache"\n{more}'
            f"[groups.chat]\nmodels = {json.dumps(list(models))}\nreplicas = {replicas}\n"
        )

    def command(self, *arguments: str, machine: str = "head") -> subprocess.CompletedProcess[str]:
        """Run ``dragoman cluster`` as a machine."""
        return subprocess.run(
            self._line(*arguments, machine=machine),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )

    def start(self, *arguments: str, machine: str) -> subprocess.Popen[bytes]:
        """The same, not waited for."""
        return subprocess.Popen(
            self._line(*arguments, machine=machine),
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    def begin(self, others: Mapping[str, Sequence[str]], *, replicas: int | None = None) -> None:
        """Start the head and further machines, and wait until all ``replicas`` serve.

        ``others`` has the options of `join` for each one. Without a number, each machine has a
        replica.
        """
        head = self.start("up", str(self.file), machine="head")
        until(lambda: self.joins("head") or head.poll() is not None)
        joining = [self.join(name, *options) for name, options in others.items()]
        assert head.wait(WAIT_SECONDS) == 0, self._ray_log()
        assert [each.wait(WAIT_SECONDS) for each in joining] == [0] * len(others)
        self.wait_for(replicas or 1 + len(others))

    def _ray_log(self, machine: str = "head") -> str:
        try:
            return (self.folder / machine / "ray.log").read_text(errors="replace")
        except OSError:
            return ""

    def up(self) -> str:
        """Start the head, or apply the file; returns what the command says."""
        done = self.command("up", str(self.file))
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def join(self, machine: str, *more: str) -> subprocess.Popen[bytes]:
        """Start a further machine; its head must listen."""
        self._joined.append(machine)
        head = f"{self.address}:{self.ports['port']}"
        token = str(self.folder / "head/token")
        return self.start("join", head, "--token", token, *more, machine=machine)

    def down(self) -> None:
        """End every machine."""
        ending = [self.start("down", machine=name) for name in ("head", *self._joined)]
        for process in ending:
            process.wait(WAIT_SECONDS)

    def replicas(self) -> list[dict[str, Any]]:
        """What the front knows of those that are ready."""
        from server.cluster.secret import cluster_key

        os.environ["RAY_AUTH_TOKEN_PATH"] = str(self.folder / "head/token")
        headers = {"authorization": f"Bearer {cluster_key()}"}
        try:
            answer = httpx.get(f"{self.url}/cluster/replicas", headers=headers, timeout=10)
        except httpx.TransportError:
            return []
        return [each for each in answer.json()["replicas"] if each["ready"]]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """The replicas once there are ``count`` ready ones."""
        found: list[dict[str, Any]] = until(
            lambda: (now := self.replicas()) and len(now) == count and now
        )
        return found

    def living(self) -> list[str]:
        """The addresses of the machines that the head has not given up."""
        return re.findall(r"^machine (\S+):", self.command("status").stdout, re.MULTILINE)

    def joins(self, machine: str) -> int:
        """How often a machine has joined since it was told to."""
        return self._ray_log(machine).count(AGENT_RUNS)

    def pid(self, machine: str, what: str = "ray") -> int:
        """The process id of what the command started."""
        state = json.loads((self.folder / machine / "machine.json").read_text())
        pid: int = state["processes"][what]["pid"]
        return pid

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(CHECKOUT)}

    def _line(self, *arguments: str, machine: str) -> list[str]:
        folder = str(self.folder / machine)
        command = [sys.executable, "-P", "-m", "server.cli", "cluster", *arguments]
        return [*self.prefix.get(machine, []), *command, "--folder", folder]


def descendants(pid: int) -> dict[int, str]:
    """The processes below ``pid`` and their command lines."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "status").read_text()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if above := re.search(r"^PPid:\s+(\d+)$", status, re.MULTILINE):
                parents[int(entry.name)] = (int(above[1]), line)
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        parent = todo.pop()
        for each, (its_parent, line) in parents.items():
            if its_parent == parent:
                found[each] = line
                todo.append(each)
    return found


def replica_pids(cluster: Cluster, machine: str) -> list[int]:
    """The processes of the replicas of a machine."""
    below = descendants(cluster.pid(machine))
    return [pid for pid, line in below.items() if "server.cluster.replica" in line]


def lives(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def kill(pid: int) -> None:
    """End a process at once."""
    os.kill(pid, signal.SIGKILL)

"""A front and replicas, each a process of its own. Ray has no part in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import msgspec

from server.cli.local_models import library
from server.cluster.replica_spec import ReplicaSpec
from server.cluster.secret import TOKEN_VARIABLE
from server.cluster.tables import FRONT_SETTINGS
from server.core.settings import Settings
from tests.cluster.on_ray.machines import until
from tests.e2e.server import CHECKOUT, free_port

_ENVIRONMENT = {TOKEN_VARIABLE: "a token of tests", "PYTHONPATH": str(CHECKOUT)}
_END_SECONDS = 60
# What the front's file must have; the replicas are told what they serve when they are started.
_FILE = """\
[head]
address = "192.0.2.1"
members_host = "{host}"
members_port = {members_port}
[front]
{front}
[settings]
store = false
files = false
[groups.chat]
models = ["any"]
"""


class ReplicaProcess:
    """One replica; ``place`` is the address at which the front reaches it."""

    def __init__(
        self,
        spec: ReplicaSpec,
        environment: Mapping[str, str],
        log: IO[bytes],
        prefix: Sequence[str],
    ) -> None:
        self.place = spec.address
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-P", "-m", "server.cluster.replica"],
            cwd=CHECKOUT,
            env={**os.environ, **_ENVIRONMENT, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(spec) + b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Let it end in good order."""
        assert self.process.stdin is not None
        self.process.stdin.close()


class Processes:
    """A front by its command, and the replicas that are added.

    Args:
        folder: For the front's file and the log.
        host: The address at which the front listens for replicas.
        outside: So for clients.
        front: Settings of the front beside that.
        prefix: A command that executes the front in its place.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        outside: str = "127.0.0.1",
        front: Mapping[str, Any] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        port, self._members = free_port(), (host, free_port())
        self.url = f"http://{outside}:{port}"
        self.replicas: list[ReplicaProcess] = []
        self.log = (folder / "cluster.log").open("w+b")
        settings = {"host": outside, "port": port, "allow_unauthenticated": True} | dict(
            front or {}
        )
        lines = [
            f"{name} = {msgspec.json.encode(each).decode()}" for name, each in settings.items()
        ]
        file = folder / "cluster.toml"
        file.write_text(
            _FILE.format(host=host, members_port=self._members[1], front="\n".join(lines))
        )
        self.front = subprocess.Popen(
            [*prefix, sys.executable, "-P", "-m", "server.cli", "cluster", "front", str(file)],
            cwd=CHECKOUT,
            env={**os.environ, **_ENVIRONMENT},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def add(
        self,
        models: Sequence[str],
        settings: Mapping[str, Any],
        *,
        address: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        place: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> ReplicaProcess:
        """Start a replica, which serves later; in the place of an earlier one, if that is given."""
        spec = ReplicaSpec(
            group="chat",
            models=list(models),
            settings=dict(settings),
            address=address,
            front=self._members,
        )
        replica = ReplicaProcess(spec, environment or {}, self.log, prefix)
        if place is None or place == len(self.replicas):
            self.replicas.append(replica)
        else:
            self.replicas[place] = replica
        return replica

    def wait_for(self, count: int) -> None:
        """Return when ``count`` replicas serve."""

        def serves() -> bool:
            for each in (self.front, *(replica.process for replica in self.replicas)):
                assert each.poll() is None, self.output()
            try:
                health = httpx.get(f"{self.url}/health").json()
            except httpx.TransportError:
                return False
            return bool(health["groups"]["chat"]["ready"] == count)

        until(serves)

    def output(self) -> str:
        """What all processes have written to their logs."""
        return os.pread(self.log.fileno(), 1 << 24, 0).decode("utf-8", "replace")

    def end(self) -> None:
        """End all of them."""
        for replica in self.replicas:
            replica.end()
        for replica in self.replicas:
            replica.process.wait(_END_SECONDS)
        self.front.terminate()
        self.front.wait(_END_SECONDS)
        self.log.close()


def settings_of(arguments: Sequence[str]) -> tuple[dict[str, Any], list[Path]]:
    """What options of ``dragoman serve`` set, and the models that it names."""
    stated: dict[str, Any] = {}
    files = []
    left = list(arguments)
    while left:
        if not left[0].startswith("--"):
            files.append(Path(left.pop(0)))
        elif left[0] == "--api-key":
            stated.setdefault("api_keys", []).append(left[1])
            del left[:2]
        else:
            stated[left[0].removeprefix("--").replace("-", "_")] = left[1]
            del left[:2]
    return stated, files


@contextmanager
def like_one_server(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Processes]:
    """A front with two replicas that serve what ``dragoman serve`` would.

    A replica has loaded all of its models; a server loads them on demand.
    """
    stated, files = settings_of(arguments)
    if files:
        stated["models_dir"] = str(files[0].parent)
    models_dir = Path(stated.get("models_dir", environment["DRAGOMAN_MODELS_DIR"]))
    known = library(Settings(models_dir=models_dir)).scan()
    models = [file.stem for file in files] or [each.id for each in known if each.error is None]
    own = {name: value for name, value in stated.items() if name in FRONT_SETTINGS}
    cluster = Processes(folder, front={name: _plain(value) for name, value in own.items()})
    try:
        for _ in range(2):
            cluster.add(models, stated, environment=environment)
        cluster.wait_for(2)
        yield cluster
    finally:
        cluster.end()


def _plain(value: str) -> Any:
    """The value of an option as it stands in a file."""
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value

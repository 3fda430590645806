"""A real server process for tests, started with the command on a free loopback port."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, TypeVar

import httpx
from openai import OpenAI

from tests.bytecode import keep_bytecode

CHECKOUT = Path(__file__).parents[2]
MODELS = Path(os.environ.get("DRAGOMAN_MODELS_DIR", CHECKOUT / "models"))
INSTRUCT = "SmolLM2-135M-Instruct.Q4_1"
BASE = "gemma-3-270m-q4_k_m"
BEHIND = os.environ.get("TEST_BEHIND")
"""What the tests run behind instead of asking a server itself: ``front``, ``ray``, or nothing."""
_WORKER = b"server.worker.serve.start"
_START_SECONDS = 120
_END_SECONDS = 30

S = TypeVar("S", bound="Server")


@dataclass
class Server:
    """A running server; ``url`` is its root."""

    process: subprocess.Popen[bytes]
    url: str
    log: IO[bytes]

    def client(self, **options: object) -> OpenAI:
        """An SDK client that does not hide failures behind retries."""
        settings: dict[str, object] = {
            "base_url": f"{self.url}/v1",
            "api_key": "unused",
            "max_retries": 0,
            "timeout": 120,
        }
        return OpenAI(**(settings | options))  # type: ignore[arg-type]

    def output(self) -> str:
        """The output of the server so far."""
        self.log.flush()
        return os.pread(self.log.fileno(), 1 << 24, 0).decode("utf-8", "replace")

    def worker_pids(self) -> dict[str, int]:
        """Process ids of the workers, by the model whose file they have mapped."""
        return workers_of(self.process.pid)


def workers_of(server: int, program: bytes = _WORKER) -> dict[str, int]:
    """Process ids of the workers of this process, by the model whose file they have mapped.

    They are its children whose command has ``program`` in it.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _is_worker(entry, server, program):
            with suppress(OSError):  # it may have ended since
                for model in re.findall(r"/([^/\n]+)\.gguf", (entry / "maps").read_text()):
                    found[model] = int(entry.name)
    return found


def _is_worker(entry: Path, server: int, program: bytes) -> bool:
    try:
        parent = re.search(r"^PPid:\s+(\d+)$", (entry / "status").read_text(), re.MULTILINE)
        command = (entry / "cmdline").read_bytes()
    except OSError:
        return False
    return parent is not None and int(parent[1]) == server and program in command


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(
    *arguments: str,
    prefix: Sequence[str] = (),
    checkout: str = "",
    **environment: str,
) -> Iterator[Server]:
    """``dragoman serve`` with these arguments, ready to answer; ended by SIGTERM afterwards.

    ``prefix`` is a command that executes the rest of the line in its place. ``checkout`` is another
    one, whose server runs in its own environment (`make install`). Unless the environment
    says otherwise, nothing is taken from earlier runs or left for later ones. Where the tests run
    behind a cluster's front (`tests.cluster.behind`), it is that.
    """
    keep_bytecode(Path(checkout or CHECKOUT))
    port = free_port()
    command = Path(sys.executable).with_name("dragoman")
    if checkout:
        command = Path(checkout, ".venv", "bin", "dragoman")
        environment["PYTHONPATH"] = checkout
    with TemporaryDirectory() as folder:
        defaults = {
            "DRAGOMAN_MODELS_DIR": str(MODELS),
            "DRAGOMAN_PREFIX_DISK": "0",
            "DRAGOMAN_STORE_URL": f"sqlite:///{folder}/store.db",
        }
        if BEHIND:
            from tests.cluster.behind import running_cluster

            with running_cluster(Path(folder), arguments, defaults | environment) as cluster:
                yield cluster
            return
        with running(
            [*prefix, str(command), "serve", "--port", str(port), *arguments],
            Server,
            f"http://127.0.0.1:{port}",
            ready="/health/ready",
            environment=defaults | environment,
        ) as server:
            yield server


@contextmanager
def running(
    command: Sequence[str], kind: type[S], url: str, *, ready: str, environment: Mapping[str, str]
) -> Iterator[S]:
    """A server of this ``kind`` that ``command`` starts, once the path ``ready`` is answered 200.

    It is ended by SIGTERM afterwards, or killed where that takes too long.

    Raises:
        AssertionError: It did not get ready; with its output.
        subprocess.TimeoutExpired: It had to be killed.
    """
    with TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        server = kind(process, url, log)
        try:
            _wait_until_ready(server, ready)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _wait_until_ready(server: Server, path: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise AssertionError(f"the server ended:\n{server.output()}")
        try:
            if httpx.get(f"{server.url}{path}").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the server did not get ready:\n{server.output()}")

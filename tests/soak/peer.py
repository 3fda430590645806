"""llama-server as a router over a folder of models, under the load and the faults of a run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import httpx

from server.core.settings import load
from tests.benchmark import peer
from tests.e2e.server import Server, free_port

_START_SECONDS = 120


class Peer(Server):
    """A running llama-server; its workers are its children, one for each loaded model."""

    def _is_worker(self, entry: Path) -> bool:
        try:
            parent = re.search(r"^PPid:\s+(\d+)$", (entry / "status").read_text(), re.MULTILINE)
        except OSError:
            return False
        return parent is not None and int(parent[1]) == self.process.pid


@contextmanager
def running_peer(models: Path, loaded: int, threads: int, **environment: str) -> Iterator[Peer]:
    """llama-server with the ``models`` of a folder, ``loaded`` of them at a time at most."""
    port = free_port()
    arguments = ["--models-dir", str(models), "--models-max", str(loaded), "--port", str(port)]
    sizes = ["--ctx-size", "4096", "--threads", str(threads)]
    with TemporaryFile() as log:
        process = subprocess.Popen(
            [str(peer.install(load().cache_dir)), *arguments, *sizes],
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        server = Peer(process, f"http://127.0.0.1:{port}", log)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(server: Peer) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if httpx.get(f"{server.url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"llama-server did not start:\n{server.output()[-2000:]}")

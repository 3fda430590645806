"""llama-server as a router over a folder of models, under the load and the faults of a run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.core.settings import load
from tests.benchmark import peer
from tests.e2e.server import Server, free_port, running, workers_of


class Peer(Server):
    """A running llama-server; its workers are its children, one for each loaded model."""

    def worker_pids(self) -> dict[str, int]:
        """Process ids by the model whose file they have mapped."""
        return workers_of(self.process.pid, b"llama-server")


@contextmanager
def running_peer(models: Path, loaded: int, threads: int, **environment: str) -> Iterator[Peer]:
    """llama-server with the ``models`` of a folder, ``loaded`` of them at a time at most."""
    port = free_port()
    arguments = ["--models-dir", str(models), "--models-max", str(loaded), "--port", str(port)]
    sizes = ["--ctx-size", "4096", "--threads", str(threads)]
    command = [str(peer.install(load().cache_dir)), *arguments, *sizes]
    url = f"http://127.0.0.1:{port}"
    # How long its end takes is not what is asked.
    with (
        suppress(subprocess.TimeoutExpired),
        running(command, Peer, url, ready="/health", environment=environment) as server,
    ):
        yield server

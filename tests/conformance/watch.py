"""Observes a running server from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.e2e.server import INSTRUCT, Server


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until the condition is true; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def engine(server: Server, figure: str) -> float:
    """A figure of the instruct model's engine; workers report once a second."""
    metrics = httpx.get(f"{server.url}/metrics").text
    name = f'dragoman_engine_{figure}{{model="{INSTRUCT}"}}'
    return float(next(line for line in metrics.splitlines() if line.startswith(name)).split()[-1])


def resident_bytes(server: Server) -> int:
    """Memory of the API process."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def descriptors(server: Server) -> int:
    """Open files of the API process."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


class Pulse(threading.Thread):
    """Requests /health/live repeatedly and records the seconds of each answer.

    A server that computes in its event loop keeps it waiting for seconds. How quick the answers are
    otherwise says more about the machine than about the server.
    """

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._url = f"{server.url}/health/live"
        self._enough = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._enough.is_set():
                began = time.perf_counter()
                assert client.get(self._url).status_code == 200
                self.seconds.append(time.perf_counter() - began)
                time.sleep(0.005)

    def longest(self) -> float:
        """Stop, and return the seconds of the slowest answer."""
        self._enough.set()
        self.join()
        return max(self.seconds)

"""What Ray Serve places, watches and replaces: one actor for each replica's process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import Any

import msgspec
import ray
from ray import serve

from server.cluster.replica_spec import ReplicaSpec, ReplicaStatus

# The name that Serve gives the log of a replica's actor.
logger = logging.getLogger("ray.serve")

_COMMAND = (sys.executable, "-P", "-m", "server.cluster.replica")
_REQUESTS = "requests"
# How soon the actor notices that its node agent has ended.
_LOOK_SECONDS = 1.0


class Replica:
    """Keeps one replica's process: it serves once this is made, and ends with it."""

    async def __init__(self, arguments: dict[str, Any]) -> None:  # type: ignore[misc]  # awaited
        """Return when the replica serves; raises RuntimeError if it ended before."""
        _end_with(os.getppid())
        address = ray.util.get_node_ip_address()
        spec = msgspec.convert({**arguments, "address": address}, ReplicaSpec)
        # Ray sets this to 1 for actors that claim no cores; the setting `threads` decides.
        environment = {name: os.environ[name] for name in os.environ if name != "OMP_NUM_THREADS"}
        self._requests = 0
        self._problem: str | None = None
        self._ready = asyncio.Event()
        self._ending = False
        self._process: Process = await asyncio.create_subprocess_exec(
            *_COMMAND, stdin=PIPE, stdout=PIPE, env=environment, start_new_session=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(spec) + b"\n")
        self._following = asyncio.create_task(self._follow())
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, self._following}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            raise RuntimeError(await self._why())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """How many requests run and wait."""
        return {_REQUESTS: float(self._requests)}

    async def __del__(self) -> None:
        """Let answers finish, and return when the process has ended. Serve awaits this."""
        self._ending = True
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        await self._process.wait()

    async def _follow(self) -> None:
        """Read what the process says of itself; its end is that of the actor, which is replaced."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            status = msgspec.json.decode(line, type=ReplicaStatus)
            self._requests = status.requests
            self._problem = status.problem or self._problem
            if status.ready:
                self._ready.set()
        if self._ready.is_set() and not self._ending:
            logger.error("%s", await self._why())
            os._exit(1)

    async def _why(self) -> str:
        code = await self._process.wait()
        if self._problem is not None:
            return self._problem
        return f"the replica's process {self._process.pid} ended with code {code}; its log says why"


def _end_with(agent: int) -> None:
    """End this process, and by that the replica's, when the node agent ``agent`` has ended.

    Ray leaves actors of a killed agent running.
    """

    def look() -> None:
        while os.getppid() == agent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, name="agent", daemon=True).start()


def build(arguments: dict[str, Any]) -> serve.Application:
    """The application of one group."""
    return serve.deployment(Replica, name=arguments["group"]).bind(arguments)


def replicas_wanted(context: Any) -> tuple[float, dict[str, Any]]:
    """How many replicas the requests need that run and wait; Serve applies bounds and delays."""
    counts = context.aggregated_metrics.get(_REQUESTS, {})
    wanted = sum(counts.values()) / context.config.target_ongoing_requests
    return max(1.0, wanted), {}

"""The parts of a cluster, which fail and come back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import httpx

from tests.cluster.faults.ledger import Ledger
from tests.cluster.faults.traffic import MODEL
from tests.cluster.network import Network
from tests.cluster.processes import Processes, ReplicaProcess
from tests.e2e.server import workers_of

REPLICAS = 3
# A front gives a replica up that is silent for ten seconds.
_SILENT_SECONDS = 13.0
_PAUSE_SECONDS = (1.0, 4.0)
_BACK_SECONDS = 240
_LOOK_SECONDS = 0.1


class Parts:
    """A front and replicas of a tiny model with one store, on machines of their own if possible."""

    def __init__(
        self, folder: Path, store: str, ledger: Ledger, network: Network | None, seed: int
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._network = network
        self._random = random.Random(seed)
        self._settings = {
            "models_dir": str(folder / "models"),
            "cache_dir": str(folder / "cache"),
            "store_url": store,
            "files": False,
            "prefix_disk": "0",
            "threads": 1,
            "log_level": "warning",
        }
        if network is None:
            self.cluster = Processes(folder)
        else:
            self.cluster = Processes(
                folder,
                host=network.address(0),
                prefix=network.prefix(0),
                outside=network.outside,
            )
        self._kinds = {
            "killed replicas": self._kill,
            "replicas that end": self._end,
            "replicas that stand still": self._stop,
            "killed workers": self._kill_workers,
        }
        if network is not None:
            self._kinds["links cut"] = self._cut

    async def start(self) -> None:
        """Return when all replicas serve."""
        for number in range(REPLICAS):
            self._add(number)
        await self._all_serve()

    async def fail(self) -> None:
        """Cause one fault after another, until cancelled; each is over before the next one."""
        while True:
            await asyncio.sleep(self._random.uniform(*_PAUSE_SECONDS))
            what, cause = self._random.choice(list(self._kinds.items()))
            self._ledger.faults[what] += 1
            number = self._random.randrange(REPLICAS)
            await cause(number)
            if self._replica(number).process.poll() is not None:
                self._add(number)
            await self._all_serve()

    async def _kill(self, number: int) -> None:
        self._replica(number).process.kill()
        await self._ended(number)

    async def _end(self, number: int) -> None:
        self._replica(number).end()
        await self._ended(number)

    async def _stop(self, number: int) -> None:
        process = self._replica(number).process
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(_SILENT_SECONDS)
        process.send_signal(signal.SIGCONT)

    async def _kill_workers(self, number: int) -> None:
        for worker in workers_of(self._replica(number).process.pid).values():
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    async def _cut(self, number: int) -> None:
        assert self._network is not None
        self._network.cut(number + 1)
        await asyncio.sleep(_SILENT_SECONDS)
        self._network.mend(number + 1)

    def _replica(self, number: int) -> ReplicaProcess:
        return self.cluster.replicas[number]

    def _add(self, number: int) -> None:
        """Start a replica, in the place of the one before."""
        address, prefix = "127.0.0.1", []
        if self._network is not None:
            address, prefix = self._network.address(number + 1), self._network.prefix(number + 1)
        self.cluster.add([MODEL], self._settings, address=address, prefix=prefix, place=number)

    async def _ended(self, number: int) -> None:
        await asyncio.to_thread(self._replica(number).process.wait, _BACK_SECONDS)

    async def _all_serve(self) -> None:
        async with asyncio.timeout(_BACK_SECONDS), httpx.AsyncClient() as http:
            while True:
                with suppress(httpx.TransportError):
                    groups = (await http.get(f"{self.cluster.url}/health")).json()["groups"]
                    if groups["chat"]["ready"] == REPLICAS:
                        return
                await asyncio.sleep(_LOOK_SECONDS)

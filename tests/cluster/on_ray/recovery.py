"""How long a cluster takes to be itself again: ``python -m tests.cluster.on_ray.recovery``.

Three machines in network namespaces, each with its own node agent of Ray, serve a tiny model on
two replicas, so that one machine is spare. A request a tenth of a second and streams without pause
are asked through the front while a replica is killed, replicas are replaced for a changed setting
and for another model file, a node agent is killed, and a machine is cut off: first one of two with
a replica, then that of the only replica. It prints one row of a table for each, and then how long a
machine that was cut off takes to join again. It needs root and the command ip.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import httpx

from tests.benchmark.routing import row, table_head
from tests.cluster.network import Network, can_make_networks, network
from tests.cluster.on_ray.machines import (
    MODEL,
    TEMPLATE,
    WAIT_SECONDS,
    Cluster,
    kill,
    lives,
    replica_pids,
    until,
)
from tests.tiny_models import write_tiny_model

NAMES = ["head", "second", "third"]
REPLICAS = 2
STREAMS = 4
# Some seconds of a busy machine, and less than replicas have to let their answers finish.
STREAM_TOKENS = 700
PERIOD_SECONDS = 0.1
# What is asked so long before and after each event shows how it is without one.
QUIET_SECONDS = 5.0


class Seen(NamedTuple):
    """One request: when it was sent and had ended, where it went, and whether it was answered."""

    begun: float
    ended: float
    replica: str | None
    answered: bool


class Event(NamedTuple):
    """What was done to the cluster.

    Attributes:
        began: When.
        again: When as many replicas as before served again.
        gone: The replicas that had to go.
        load_seconds: How long the replica that came in its place took to start and load.
    """

    began: float
    again: float
    gone: set[str]
    load_seconds: float


class Clients:
    """Clients that ask without pause, and what became of their requests."""

    def __init__(self, url: str) -> None:
        self.requests: list[Seen] = []
        self.streams: list[Seen] = []
        self._url = url
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[[], Event]) -> Event:
        """Ask while ``work`` is done in a thread, and a moment before and after it."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self._url, timeout=300, limits=limits) as http:
            asking = asyncio.create_task(self._ask(http))
            streaming = [asyncio.create_task(self._stream(http, n)) for n in range(STREAMS)]
            await asyncio.sleep(QUIET_SECONDS)
            event = await asyncio.to_thread(work)
            await asyncio.sleep(QUIET_SECONDS)
            asking.cancel()
            for task in streaming:
                task.cancel()
            await asyncio.gather(asking, *streaming, *self._tasks, return_exceptions=True)
        return event

    async def _ask(self, http: httpx.AsyncClient) -> None:
        """Send a request each period, whether those before it were answered or not."""
        number = 0
        while True:
            number += 1
            task = asyncio.create_task(self._one(http, number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(PERIOD_SECONDS)

    async def _one(self, http: httpx.AsyncClient, number: int) -> None:
        begun, status = time.monotonic(), 0
        body = {"model": MODEL, "prompt": f"request {number}", "max_tokens": 4}
        with suppress(httpx.HTTPError):
            status = (await http.post("/v1/completions", json=body)).status_code
        self.requests.append(Seen(begun, time.monotonic(), None, status == 200))

    async def _stream(self, http: httpx.AsyncClient, client: int) -> None:
        turn = 0
        while True:
            turn += 1
            body = {
                "model": MODEL,
                "prompt": f"client {client}, turn {turn}",
                "max_tokens": STREAM_TOKENS,
                "ignore_eos": True,
                "stream": True,
            }
            begun, place, last = time.monotonic(), None, ""
            with suppress(httpx.HTTPError):
                async with http.stream("POST", "/v1/completions", json=body) as answer:
                    place = answer.headers.get("x-dragoman-replica")
                    async for line in answer.aiter_lines():
                        last = line or last
            self.streams.append(Seen(begun, time.monotonic(), place, last == "data: [DONE]"))


class Bench:
    """The cluster, and what is done to it.

    Attributes:
        back_seconds: From the mending of each link to the joining of its machine.
    """

    def __init__(self, folder: Path, machines: Network) -> None:
        self._machines = machines
        self._folder = folder
        for number, models in enumerate(("models", "other-models")):
            (folder / models).mkdir()
            path = folder / models / f"{MODEL}.gguf"
            write_tiny_model(path, "full attention", seed=number + 1, chat_template=TEMPLATE)
        self.cluster = Cluster(folder, machines.address(0), folder / "models", machines.outside)
        self.cluster.prefix = {name: machines.prefix(number) for number, name in enumerate(NAMES)}
        self.cluster.write(replicas=str(REPLICAS))
        self.back_seconds: list[float] = []

    def start(self) -> None:
        """Return when the replicas serve."""
        others = {name: self._options(name) for name in NAMES[1:]}
        self.cluster.begin(others, replicas=REPLICAS)

    def kill_replica(self) -> Event:
        """Kill the process of a replica."""
        name, lost = self._one_beside_the_head()
        [process] = replica_pids(self.cluster, name)
        began = time.monotonic()
        kill(process)
        return self._whole_again(began, {lost})

    def change_setting(self) -> Event:
        """Apply a file with another setting."""
        return self._applied("parallel = 3\n", "models")

    def change_model(self) -> Event:
        """Apply a file by which the model of that name is another file."""
        return self._applied("parallel = 3\n", "other-models")

    def kill_agent(self) -> Event:
        """Kill the node agent of a machine with a replica, with the processes of its group."""
        name, lost = self._one_beside_the_head()
        began = time.monotonic()
        os.killpg(self.cluster.pid(name), signal.SIGKILL)
        event = self._whole_again(began, {lost})
        until(lambda: not lives(self.cluster.pid(name)))
        assert self.cluster.join(name, *self._options(name)).wait(WAIT_SECONDS) == 0
        return event

    def cut_off(self) -> Event:
        """Take the link of a machine with a replica down."""
        return self._cut_off(REPLICAS)

    def cut_off_the_only_one(self) -> Event:
        """Have one replica, on a machine beside the head, and take the link of that down."""
        before = {str(each["id"]) for each in self.cluster.wait_for(REPLICAS)}
        self.cluster.write(replicas="1\nresources = { aside = 0.1 }")
        self.cluster.up()
        until(lambda: self._serves(1, before))
        return self._cut_off(1)

    def _cut_off(self, replicas: int) -> Event:
        name, lost = self._one_beside_the_head(replicas)
        number, before = NAMES.index(name), self.cluster.joins(name)
        began = time.monotonic()
        self._machines.cut(number)
        event = self._whole_again(began, {lost}, replicas)
        until(lambda: self._machines.address(number) not in self.cluster.living())
        self._machines.mend(number)
        mended = time.monotonic()
        until(lambda: self.cluster.joins(name) > before)
        self.back_seconds.append(time.monotonic() - mended)
        return event

    def _options(self, name: str) -> list[str]:
        address = self._machines.address(NAMES.index(name))
        return ["--address", address, "--resources", '{"aside": 1}']

    def _one_beside_the_head(self, replicas: int = REPLICAS) -> tuple[str, str]:
        """A machine with a replica that is not the head, and the replica's id."""
        names = {self._machines.address(number): name for number, name in enumerate(NAMES)}
        places = {names[each["host"]]: each["id"] for each in self.cluster.wait_for(replicas)}
        return next((name, id_) for name, id_ in places.items() if name != "head")

    def _applied(self, settings: str, models: str) -> Event:
        before = {str(each["id"]) for each in self.cluster.wait_for(REPLICAS)}
        self.cluster.models = self._folder / models
        self.cluster.write(replicas=str(REPLICAS), more=settings)
        began = time.monotonic()
        assert "its replicas are replaced" in self.cluster.up()
        return self._whole_again(began, before)

    def _serves(self, replicas: int, gone: set[str]) -> bool:
        now = {each["id"] for each in self.cluster.replicas()}
        return len(now) == replicas and not now & gone

    def _whole_again(self, began: float, gone: set[str], replicas: int = REPLICAS) -> Event:
        """Wait until there are as many replicas as before, and none that had to go."""
        until(lambda: self._serves(replicas, gone))
        again = time.monotonic()
        youngest = min(
            age(pid)
            for name in NAMES
            if lives(self.cluster.pid(name))
            for pid in replica_pids(self.cluster, name)
        )
        return Event(began, again, gone, youngest)


def age(pid: int) -> float:
    """Seconds since a process was started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


COLUMNS = [
    "requests, failed",
    "streams, own ended with an error",
    "others",
    "first answer after, s",
    "slowest answer, s",
    "slowest before, s",
    "whole again, s",
    "of it start and load, s",
]


def figures(event: Event, clients: Clients) -> list[str]:
    """What an event cost, for a row of the table."""
    after = [seen for seen in clients.requests if seen.begun >= event.began]
    before = [seen for seen in clients.requests if seen.ended < event.began]
    streams = [seen for seen in clients.streams if seen.ended >= event.began]
    cut = [seen for seen in streams if not seen.answered]
    own = [seen for seen in cut if seen.replica in event.gone]
    seconds = [
        min(seen.ended for seen in after if seen.answered) - event.began,
        slowest(after),
        slowest(before),
        event.again - event.began,
        event.load_seconds,
    ]
    return [
        f"{len(after)}, {sum(not seen.answered for seen in after)}",
        f"{len(streams)}, {len(own)}",
        str(len(cut) - len(own)),
        *(f"{each:.1f}" for each in seconds),
    ]


def slowest(requests: Iterable[Seen]) -> float:
    """The longest that one of them took, in seconds."""
    return max(seen.ended - seen.begun for seen in requests)


@contextmanager
def bench() -> Iterator[Bench]:
    """A cluster that serves."""
    with TemporaryDirectory() as folder, network(len(NAMES)) as machines:
        made = Bench(Path(folder), machines)
        try:
            made.start()
            yield made
        finally:
            made.cluster.down()


def main() -> None:
    """Measure, and print a table for ``docs/cluster.md``."""
    if not can_make_networks():
        sys.exit("namespaces need root and the command ip")
    with bench() as made:
        events = {
            "a replica is killed": made.kill_replica,
            "replicas are replaced for a setting": made.change_setting,
            "replicas are replaced for a model file": made.change_model,
            "a node agent is killed": made.kill_agent,
            "a machine is cut off": made.cut_off,
            "the machine of the only replica is cut off": made.cut_off_the_only_one,
        }
        table_head(*COLUMNS)
        for what, work in events.items():
            clients = Clients(made.cluster.url)
            event = asyncio.run(clients.run(work))
            row(what, *figures(event, clients))
        print("seconds to join again:", *(f"{each:.1f}" for each in made.back_seconds))


if __name__ == "__main__":
    main()

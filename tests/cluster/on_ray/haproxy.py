"""Serve's HAProxy mode beside our front: ``python -m tests.cluster.on_ray.haproxy``.

Two replicas of a small application stand behind Serve's HAProxy. A replica is killed while it
streams, and while it has a request that it has not answered; then the ports that listen at every
address are asked. It prints what a client gets, for ``docs/cluster.md``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from server.cluster.joined import AGENT_RUNS
from server.cluster.machine import MachineFolder, end, ray_command, ray_environment
from server.cluster.secret import create_token
from tests.cluster.on_ray.machines import address, kill, until
from tests.e2e.server import free_port

REPLICAS = 2
_PERIOD_SECONDS = 0.05


@contextmanager
def running_ray(folder: Path, own: str) -> Iterator[str]:
    """The address of Ray's head on this machine."""
    machine = MachineFolder(folder)
    create_token(machine.token)
    # Ray reads them when it is imported.
    os.environ |= ray_environment(machine.token) | {"RAY_SERVE_ENABLE_HA_PROXY": "1"}
    port = free_port()
    command = ray_command(
        address=None, own_address=own, port=port, resources=None, temporary=folder / "ray"
    )
    ray = machine.start("ray", command, {})
    try:
        until(lambda: AGENT_RUNS in machine.log("ray").read_text())
        yield f"{own}:{port}"
    finally:
        end(ray)


@contextmanager
def serving(head: str) -> Iterator[str]:
    """The address of the application behind Serve's HAProxy."""
    import ray
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse
    from ray import serve

    app = FastAPI()

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            while True:
                yield f"data: {os.getpid()}\n\n"
                await asyncio.sleep(_PERIOD_SECONDS)

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/silent")
    async def silent(path: str) -> None:
        with open(path, "w") as file:  # noqa: ASYNC230, PTH123 in another process, a moment
            file.write(str(os.getpid()))
        await asyncio.sleep(3600)

    class Application:
        pass

    deployment = serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": 0})
    port = free_port()
    ray.init(address=head, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(deployment(serve.ingress(app)(Application)).bind())
        url = f"http://127.0.0.1:{port}"
        until(lambda: len(replicas(url)) == REPLICAS)
        yield url
    finally:
        serve.shutdown()
        ray.shutdown()


def replicas(url: str) -> set[int]:
    """The processes that answer."""
    with suppress(httpx.HTTPError, ValueError):
        return {int(httpx.get(f"{url}/pid").text) for _ in range(8)}
    return set()


def killed_in_mid_stream(url: str) -> str:
    """What ends a stream whose replica is killed."""
    last = ""
    try:
        with httpx.stream("GET", f"{url}/stream", timeout=60) as answer:
            for line in answer.iter_lines():
                if not last:
                    kill(int(line.removeprefix("data: ")))
                last = line or last
    except httpx.HTTPError as error:
        return f"{type(error).__name__} ({error}), after {last!r}"
    return f"its end, after {last!r}"


def killed_before_its_answer(url: str) -> str:
    """What a client gets whose request a killed replica had and had not answered."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "pid")
        ends: list[str] = []

        def ask() -> None:
            try:
                answer = httpx.get(f"{url}/silent", params={"path": str(file)}, timeout=60)
                ends.append(f"{answer.status_code} {answer.text!r}")
            except httpx.HTTPError as error:
                ends.append(f"{type(error).__name__} ({error})")

        asking = threading.Thread(target=ask)
        asking.start()
        kill(until(lambda: file.exists() and int(file.read_text() or 0)))
        asking.join()
        return ends[0]


def open_ports(own: str) -> list[str]:
    """What answers at the address of this machine, though the proxy has that of loopback."""
    listening = subprocess.run(["ss", "-Htln"], capture_output=True, text=True, check=True)
    places = [line.split()[3] for line in listening.stdout.splitlines()]
    found = []
    for place in sorted(each for each in places if not each.startswith(("127.", "[::1]"))):
        with suppress(httpx.HTTPError):
            port = place.rpartition(":")[2]
            answer = httpx.get(f"http://{own}:{port}/pid", timeout=5)
            found.append(f"{place}: {answer.status_code} {answer.text[:20]!r}")
    return found


def main() -> None:
    """Try it, and print what happened."""
    if (own := address()) is None:
        sys.exit("this machine is in no network, which Ray needs")
    # Near the root: paths of Ray's sockets may have 107 bytes.
    with TemporaryDirectory(dir="/tmp") as folder, running_ray(Path(folder), own) as head:
        before = open_ports(own)
        with serving(head) as url:
            print("a replica is killed in mid-stream:", killed_in_mid_stream(url))
            until(lambda: len(replicas(url)) == REPLICAS)
            print("a replica is killed before it answers:", killed_before_its_answer(url))
            until(lambda: len(replicas(url)) == REPLICAS)
            opened = [place for place in open_ports(own) if place not in before]
            print("open to other machines:", *opened, sep="\n  ")


if __name__ == "__main__":
    main()

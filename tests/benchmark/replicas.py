"""Agents' sessions on real replicas behind a front: ``python -m tests.benchmark.replicas``.

Eight sessions of an agent run beside each other over ``/v1/messages``, on one replica, and on two
with each way to choose. The table says how many prompt tokens were computed, and how many turns
came where the turn before them came. Ray has no part in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from server.benchmark.agent import MessagesSession, Shape
from server.benchmark.texts import some_text
from server.benchmark.timed_client import Endpoint
from server.cluster.affinity.request_affinity import Affinity
from server.cluster.replica_spec import ReplicaSpec
from server.cluster.routing import AffinityRouter, Asked, Router
from server.cluster.secret import TOKEN_VARIABLE, cluster_key
from tests.benchmark.routing import Policy, least_loaded, random_policy, row, table_head
from tests.cluster import in_process

SESSIONS = 8
SHAPE = Shape(turns=8, system=600, tools=8, result=100, answer=8)
SETTINGS = {
    "kv_tokens": 32768,
    "prefix_disk": "0",
    "store": False,
    "files": False,
    "log_level": "error",
}
START_SECONDS = 300


class Blind:
    """Chooses by loads alone."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def choose(self, asked: Asked, loads: Mapping[str, int]) -> str:
        """What the policy chooses."""
        return self._policy(Affinity(), loads)


class Recorded:
    """A router, and where it sent each session.

    Attributes:
        places: The replicas of the turns of each session, by its question.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self.places: dict[str, list[str]] = defaultdict(list)

    def choose(self, asked: Asked, loads: Mapping[str, int]) -> str:
        """What the router chooses."""
        chosen = self._router.choose(asked, loads)
        if asked.body is not None:
            self.places[asked.body["messages"][0]["content"]].append(chosen)
        return chosen

    def same(self) -> float:
        """The share of turns that came where the turn before them came."""
        pairs = [pair for turns in self.places.values() for pair in pairwise(turns)]
        return sum(before == now for before, now in pairs) / len(pairs)


@asynccontextmanager
async def replicas(model: Path, count: int, router: Router) -> AsyncIterator[str]:
    """The address of a front with ``count`` replicas that have loaded ``model``."""
    async with in_process.running(router) as cluster:
        with TemporaryDirectory() as folder:
            started = [
                await _start(model, number, cluster.address, Path(folder))
                for number in range(count)
            ]
            try:
                async with asyncio.timeout(START_SECONDS):
                    while len(cluster.members.serving(None)) < count:  # noqa: ASYNC110 see `until`
                        await asyncio.sleep(0.1)
                yield cluster.url
            finally:
                for process in started:
                    assert process.stdin is not None
                    process.stdin.close()
                for process in started:
                    await process.wait()


async def _start(
    model: Path, number: int, front: tuple[str, int], folder: Path
) -> asyncio.subprocess.Process:
    cache = str(folder / str(number))
    spec = ReplicaSpec(
        group="chat",
        models=[model.stem],
        settings=SETTINGS | {"models_dir": str(model.parent), "cache_dir": cache},
        address="127.0.0.1",
        front=front,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server.cluster.replica",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(spec) + b"\n")
    await process.stdin.drain()
    return process


async def session(url: str, model: str, number: int, *, named: bool) -> int:
    """Prompt tokens computed for the turns of one session; raises if one is not answered."""
    endpoint = Endpoint(url)
    growing = MessagesSession(SHAPE, 0)
    computed = 0
    for turn in range(SHAPE.turns):
        text = json.dumps(growing.body()).replace(growing.question, f"Question {number}.")
        body: dict[str, Any] = {"model": model, **json.loads(text)}
        if named:
            body["metadata"] = {"user_id": json.dumps({"session_id": f"session {number}"})}
        answer = await endpoint.stream(body, growing.api)
        if answer.error is not None:
            raise RuntimeError(answer.error)
        computed += answer.prompt_tokens - answer.cached_tokens
        result = some_text(SHAPE.result, 1000 * number + turn)
        growing.go_on(turn, answer.text, result, f"Turn {turn} is over.")
    return computed


async def measure(model: Path, count: int, router: Router, *, named: bool) -> tuple[int, float]:
    """Prompt tokens computed for all sessions, and the share of turns that stayed."""
    recorded = Recorded(router)
    async with replicas(model, count, recorded) as url:
        sessions = [session(url, model.stem, number, named=named) for number in range(SESSIONS)]
        computed = sum(await asyncio.gather(*sessions))
    return computed, recorded.same()


async def compare(model: Path) -> None:
    """Print a table for ``docs/cluster.md``."""
    one, _ = await measure(model, 1, Blind(least_loaded()), named=False)
    table_head("prompt tokens computed", "of one replica's", "turns on the same replica")
    row("one replica", f"{one:,}", "1.00", "1.000")
    cases: dict[str, tuple[Router, bool]] = {
        "two, affinity by the prompt": (AffinityRouter(), False),
        "two, affinity by the session's name": (AffinityRouter(), True),
        "two, least loaded": (Blind(least_loaded()), False),
        "two, at random": (Blind(random_policy()), False),
    }
    for name, (router, named) in cases.items():
        computed, same = await measure(model, 2, router, named=named)
        row(name, f"{computed:,}", f"{computed / one:.2f}", f"{same:.3f}")


def main() -> None:
    """Measure with one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path("models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("model", nargs="?", type=Path, default=default)
    # The replicas derive the key of the test's front from it.
    os.environ[TOKEN_VARIABLE] = "a token for this run"
    in_process.KEY = cluster_key()
    asyncio.run(compare(parser.parse_args().model.resolve()))


if __name__ == "__main__":
    main()

"""Fuzzes a server for a while, over every endpoint: ``python -m tests.fuzz``, see ``--help``."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter

import httpx

from tests.e2e.server import INSTRUCT, Server
from tests.fuzz.campaign import TINY, Campaign, campaign, fuzzed_server
from tests.fuzz.state import KEYS, Sessions

# Requests of a round, and steps of its sessions.
_REQUESTS, _STEPS = 9_000, 1_000
# Each has sessions of its own, all at once.
_MODELS = [INSTRUCT, *TINY]


def main() -> None:
    """Fuzz in rounds, print the seed of each, and stop at the first broken promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--requests", type=int, help="go on for so many, however long that takes")
    parser.add_argument("--seed", type=int, help="of the first round; the others follow from it")
    chosen = parser.parse_args()
    seeds = random.Random(chosen.seed)
    with campaign() as running, fuzzed_server(DRAGOMAN_API_KEYS=",".join(KEYS)) as remembering:
        began = time.monotonic()
        try:
            while not _is_enough(chosen, running.requests, time.monotonic() - began):
                number = seeds.getrandbits(32)
                print(f"seed {number}: ", end="", flush=True)
                asyncio.run(_round(running, remembering, number))
                running.assert_workers_lived()
                print(_so_far(running, time.monotonic() - began), flush=True)
        finally:
            print(_table(running))


def _is_enough(chosen: argparse.Namespace, requests: int, seconds: float) -> bool:
    if chosen.requests:
        return bool(requests >= chosen.requests)
    return bool(seconds >= 60 * chosen.minutes)


async def _round(running: Campaign, remembering: Server, number: int) -> None:
    """Requests to one server, beside sessions with the other."""
    requests = running.draw(_REQUESTS, number)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(running.send(requests))
        sessions = tasks.create_task(_sessions(remembering, number))
    running.add(sessions.result())


async def _sessions(server: Server, number: int) -> Counter[tuple[str, int]]:
    """Have sessions with ``server``, drawn from seed ``number``; counts the answers."""
    statuses: Counter[int] = Counter()

    async def talk(model: str) -> None:
        sessions = Sessions(http, model, random.Random(f"{number} {model}"))
        for _ in range(_STEPS // len(_MODELS)):
            await sessions.step()
        statuses.update(sessions.statuses)

    key = {"authorization": f"Bearer {KEYS[0]}"}
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
        for model in _MODELS:
            body = {"model": model, "prompt": "Hi", "max_tokens": 1}
            loaded = await http.post("/v1/completions", json=body, headers=key)
            assert loaded.status_code == 200, loaded.text
        workers = server.worker_pids()
        await asyncio.gather(*map(talk, _MODELS))
    assert server.worker_pids() == workers
    return Counter({("in sessions", code): n for code, n in statuses.items()})


def _so_far(running: Campaign, seconds: float) -> str:
    counts = ", ".join(f"{n:,} x {s}" for s, n in sorted(running.statuses.items()))
    return f"{running.requests:,} requests, {running.requests / seconds:.0f} a second ({counts})"


def _table(running: Campaign) -> str:
    """How many requests each endpoint answered, as Markdown."""
    by_endpoint: dict[str, Counter[int]] = {}
    for (endpoint, code), count in running.answers.items():
        by_endpoint.setdefault(endpoint, Counter())[code] += count
    rows = [
        f"| {endpoint} | {codes.total():,} | "
        + ", ".join(f"{count:,} x {code}" for code, count in sorted(codes.items()))
        + " |"
        for endpoint, codes in sorted(by_endpoint.items())
    ]
    return "\n".join(["| endpoint | requests | answers |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    main()

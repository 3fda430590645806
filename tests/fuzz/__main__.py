"""Fuzzes a server for a while, over every endpoint: ``python -m tests.fuzz``, see ``--help``."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter

import httpx

from docs.fuzz_report import FUZZ, Run, by_endpoint, machine, read, saved, table
from tests.e2e.server import INSTRUCT, Server
from tests.fuzz.campaign import TINY, Campaign, campaign, fuzzed_server
from tests.fuzz.state import KEYS, Sessions

# Requests of a round.
_REQUESTS = 19_200
# Steps of a round's sessions. Each model has sessions of its own, all at once; a step of the real
# one costs as much as ten others.
_STEPS = {INSTRUCT: 40, **dict.fromkeys(TINY, 190)}


def main() -> None:
    """Fuzz in rounds, print the seed of each, and stop at the first broken promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--requests", type=int, help="go on for so many, however long that takes")
    parser.add_argument("--seed", type=int, help="the rounds' seeds follow from it")
    parser.add_argument("--save", action="store_true", help="add the counts to those of the docs")
    chosen = parser.parse_args()
    if chosen.seed is None:
        chosen.seed = random.SystemRandom().getrandbits(32)
    print(f"--seed {chosen.seed}", flush=True)
    seeds = random.Random(chosen.seed)
    before = read(FUZZ)
    with campaign() as running, fuzzed_server(DRAGOMAN_API_KEYS=",".join(KEYS)) as remembering:
        began = time.monotonic()
        try:
            while not _is_enough(chosen, running.requests, time.monotonic() - began):
                number = seeds.getrandbits(32)
                print(f"seed {number}: ", end="", flush=True)
                asyncio.run(_round(running, remembering, number))
                running.assert_workers_lived()
                seconds = time.monotonic() - began
                print(_so_far(running, seconds), flush=True)
                if chosen.save:
                    saved([*before, _run(chosen, running, seconds)], FUZZ)
        finally:
            print(table([by_endpoint(running.answers)]))


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

    async def talk(model: str, steps: int) -> None:
        sessions = Sessions(http, model, random.Random(f"{number} {model}"))
        for _ in range(steps):
            await sessions.step()
        statuses.update(sessions.statuses)

    key = {"authorization": f"Bearer {KEYS[0]}"}
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
        for model in _STEPS:
            body = {"model": model, "prompt": "Hi", "max_tokens": 1}
            loaded = await http.post("/v1/completions", json=body, headers=key)
            assert loaded.status_code == 200, loaded.text
        workers = server.worker_pids()
        await asyncio.gather(*(talk(model, steps) for model, steps in _STEPS.items()))
    assert server.worker_pids() == workers
    return Counter({("in sessions", code): n for code, n in statuses.items()})


def _so_far(running: Campaign, seconds: float) -> str:
    counts = ", ".join(f"{n:,} x {s}" for s, n in sorted(running.statuses.items()))
    return f"{running.requests:,} requests, {running.requests / seconds:.0f} a second ({counts})"


def _run(chosen: argparse.Namespace, running: Campaign, seconds: float) -> Run:
    """What is kept of the rounds so far."""
    return Run(
        command=f"python -m tests.fuzz --requests {running.requests} --seed {chosen.seed}",
        machine=machine(),
        seconds=round(seconds, 1),
        answers=by_endpoint(running.answers),
    )


if __name__ == "__main__":
    main()

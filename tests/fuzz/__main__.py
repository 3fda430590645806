"""Fuzzes a server for a while, over every endpoint: ``python -m tests.fuzz``, see ``--help``."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter

import httpx

from tests.e2e.server import INSTRUCT, Server, running_server
from tests.fuzz.campaign import SERVER_OPTIONS, Campaign, campaign
from tests.fuzz.state import KEYS, Sessions

# Requests of a round: bodies, cases of the description, and steps of sessions.
_BODIES, _CASES, _STEPS = 1_000, 400, 600


def main() -> None:
    """Fuzz in rounds, print the seed of each, and stop at the first broken promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--requests", type=int, help="go on for so many, however long that takes")
    parser.add_argument("--seed", type=int, help="of the first round; the others follow from it")
    chosen = parser.parse_args()
    seeds = random.Random(chosen.seed)
    keys = {"DRAGOMAN_API_KEYS": ",".join(KEYS)}
    with campaign() as running, running_server(*SERVER_OPTIONS, **keys) as remembering:
        began = time.monotonic()
        while True:
            number = seeds.getrandbits(32)
            print(f"seed {number}: ", end="", flush=True)
            running.send_bodies(_BODIES, number)
            running.send_cases(_CASES, number)
            running.add(asyncio.run(_sessions(remembering, _STEPS, number)))
            running.assert_workers_lived()
            seconds = time.monotonic() - began
            print(_so_far(running, seconds), flush=True)
            if (
                running.requests >= chosen.requests
                if chosen.requests
                else seconds >= 60 * chosen.minutes
            ):
                break
    print(_table(running))


async def _sessions(server: Server, steps: int, number: int) -> Counter[tuple[str, int]]:
    """Have sessions with ``server``, drawn from seed ``number``; counts the answers."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        sessions = Sessions(http, INSTRUCT, random.Random(number))
        workers: dict[str, int] = {}
        for _ in range(steps):
            await sessions.step()
            workers = workers or server.worker_pids()
        assert server.worker_pids() == workers
        return Counter({("in sessions", code): n for code, n in sessions.statuses.items()})


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

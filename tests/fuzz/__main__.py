"""Fuzzes a server for a while: ``python -m tests.fuzz [MINUTES]``, 10 by default."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter

import httpx

from tests.e2e.server import INSTRUCT, Server, running_server
from tests.fuzz.campaign import SERVER_OPTIONS, campaign
from tests.fuzz.state import KEYS, Sessions


def main(minutes: float) -> None:
    """Fuzz in rounds, print the seed of each, and stop at the first broken promise."""
    end = time.monotonic() + minutes * 60
    keys = {"DRAGOMAN_API_KEYS": ",".join(KEYS)}
    with campaign() as running, running_server(*SERVER_OPTIONS, **keys) as remembering:
        while time.monotonic() < end:
            number = random.getrandbits(32)
            print(f"seed {number}: ", end="", flush=True)
            running.send_bodies(1_000, number)
            running.send_cases(400, number)
            running.statuses += asyncio.run(_sessions(remembering, 600, number))
            running.assert_workers_lived()
            counts = ", ".join(f"{n} x {s}" for s, n in sorted(running.statuses.items()))
            print(f"{running.requests} requests in all ({counts})", flush=True)


async def _sessions(server: Server, steps: int, number: int) -> Counter[int]:
    """Have sessions with ``server``, drawn from seed ``number``; counts the answers."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        sessions = Sessions(http, INSTRUCT, random.Random(number))
        workers: dict[str, int] = {}
        for _ in range(steps):
            await sessions.step()
            workers = workers or server.worker_pids()
        assert server.worker_pids() == workers
        return sessions.statuses


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)

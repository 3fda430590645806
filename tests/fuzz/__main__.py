"""Fuzzes a server for a while: ``python -m tests.fuzz [MINUTES]``, 10 by default."""

from __future__ import annotations

import random
import sys
import time

from tests.fuzz.campaign import campaign


def main(minutes: float) -> None:
    """Fuzz in rounds, print the seed of each, and stop at the first broken promise."""
    end = time.monotonic() + minutes * 60
    with campaign() as running:
        while time.monotonic() < end:
            number = random.getrandbits(32)
            print(f"seed {number}: ", end="", flush=True)
            running.send_bodies(1_000, number)
            running.send_cases(400, number)
            running.assert_workers_lived()
            counts = ", ".join(f"{n} x {s}" for s, n in sorted(running.statuses.items()))
            print(f"{running.requests} requests in all ({counts})", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)

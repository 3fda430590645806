"""What storing costs: `python -m tests.benchmark.store [URL]`, in a folder of its own by default.

The model answers at once (`tests.api.fakes`), so all time is the API's. Milliseconds of a response
that is not stored, of one that is, and of one that is stored and then retrieved, in turns, so that
what else the machine does falls on all three alike; and of a page of input items.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from server.app import create_app
from server.core.settings import Settings
from server.store.kinds import Item, Response
from server.store.records import Records
from server.store.store import Store
from tests.api.fakes import FakePool

STORED = 10_000
SAMPLES = 1_000
ITEMS = 1_000


async def main(url: str) -> None:
    app = create_app(Settings(store_url=url, log_level="error"), FakePool())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:

        async def create(*, store: bool) -> str:
            body = {"model": "test", "input": "What is the time? " * 50, "store": store}
            answered = await http.post("/v1/responses", json=body)
            name: str = answered.json()["id"]
            return name

        async def create_and_retrieve() -> None:
            name = await create(store=True)
            assert (await http.get(f"/v1/responses/{name}")).status_code == 200

        await fill(app.state.context.store)
        print(f"{STORED} responses stored; load average {os.getloadavg()[0]:.1f}")
        kinds: dict[str, Callable[[], Awaitable[object]]] = {
            "create, not stored": lambda: create(store=False),
            "create, stored": lambda: create(store=True),
            "create, stored, and retrieve": create_and_retrieve,
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(SAMPLES):
            for name, work in kinds.items():
                times[name].append(await milliseconds(work))
        for name in kinds:
            show(name, times[name])
        given = [{"role": "user", "content": "x" * 200} for _ in range(ITEMS)]
        made = await http.post("/v1/responses", json={"model": "test", "input": given})
        path = f"/v1/responses/{made.json()['id']}/input_items?limit=100"
        pages = [await milliseconds(lambda: http.get(path)) for _ in range(SAMPLES)]
        show(f"a page of 100 of {ITEMS} input items", pages)
    await app.state.context.store.close()


async def fill(store: Store) -> None:
    """Store `STORED` responses of two items."""
    text = "What is the time? " * 50

    def save(records: Records) -> None:
        for number in range(STORED):
            name = f"resp_{number}"
            made = Response(
                id=name, owner="", created_at=number, status="completed", body=b"{}" * 500
            )
            item = Item(id=f"msg_{number}", body=text.encode())
            records.responses.save(made, [item], [item])

    await store.write(save)


async def milliseconds(work: Callable[[], Awaitable[object]]) -> float:
    """How long ``work`` takes."""
    began = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - began)


def show(name: str, times: Sequence[float]) -> None:
    """Print the median and the 99th percentile."""
    p50, p99 = np.percentile(times, [50, 99])
    print(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{Path(folder)}/s.db"))

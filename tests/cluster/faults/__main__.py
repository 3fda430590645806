"""Requests of all kinds while a cluster's parts fail: ``python -m tests.cluster.faults``.

Three replicas of a tiny model share a store in PostgreSQL, and clients send them requests of all
kinds through a front, while replicas and workers are killed, are ended, stand still, and, with the
rights for network namespaces, are cut off. Every request has to be answered, or its client has to
hear of an error. Afterwards what is stored is compared with what clients know: nothing is stored
that no client knows, or twice, and nothing that was answered is missing. The exit code is 1
otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import msgspec
from sqlalchemy import func, select

from server.store.database import Database
from server.store.schema import responses
from tests.cluster.faults.ledger import Ledger, Row
from tests.cluster.faults.parts import Parts
from tests.cluster.faults.traffic import MODEL, Client
from tests.cluster.network import Network, can_make_networks, network
from tests.cluster.on_ray.machines import TEMPLATE
from tests.postgresql import running_postgresql
from tests.tiny_models import write_tiny_model

CLIENTS = 8
# Longer than a silent replica is waited for, and another one behind it.
_ANSWER_SECONDS = 120


def names(count: int) -> Iterator[str]:
    """Names of requests."""
    yield from (f"request {number}" for number in range(count))


def stored(url: str) -> list[Row]:
    """The responses in the store."""
    database = Database(url)
    try:
        with database.reading() as connection:
            bodies = connection.execute(
                select(responses.c.id, responses.c.body).where(func.length(responses.c.body) > 0)
            )
            return [
                Row(row.id, msgspec.json.decode(bytes(row.body))["metadata"]["request"])
                for row in bodies
            ]
    finally:
        database.close()


async def compare_turns(http: httpx.AsyncClient, ledger: Ledger) -> None:
    """Compare every conversation with what clients know of it."""
    for conversation in ledger.conversations:
        path = f"/v1/conversations/{conversation}/items"
        items = (await http.get(path, params={"limit": 100, "order": "asc"})).json()["data"]
        texts = [item["content"][0]["text"] for item in items if item["role"] == "user"]
        ledger.compare_turns(conversation, texts)


async def run(
    folder: Path, store: str, machines: Network | None, count: int, seed: int, clients: int
) -> Ledger:
    """Send the requests, and compare."""
    ledger = Ledger()
    parts = Parts(folder, store, ledger, machines, seed)
    try:
        await parts.start()
        taken = names(count)
        failing = asyncio.create_task(parts.fail())
        async with httpx.AsyncClient(base_url=parts.cluster.url, timeout=_ANSWER_SECONDS) as http:
            each = [Client(http, ledger, seed + number).run(taken) for number in range(clients)]
            await asyncio.gather(*each)
            if failing.done():
                await failing
            failing.cancel()
            await compare_turns(http, ledger)
        await asyncio.gather(failing, return_exceptions=True)
    finally:
        await asyncio.to_thread(parts.cluster.end)
    ledger.compare(stored(store))
    return ledger


@contextmanager
def places() -> Iterator[tuple[Path, str, Network | None]]:
    """A folder with the model, a database, and a network where one can be made."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        (folder / "models").mkdir()
        write_tiny_model(folder / f"models/{MODEL}.gguf", "full attention", chat_template=TEMPLATE)
        database = stack.enter_context(running_postgresql())
        machines = stack.enter_context(network(4)) if can_make_networks() else None
        yield folder, database(), machines


def main() -> None:
    """Run it, and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    begun = time.monotonic()
    with places() as (folder, store, machines):
        ledger = asyncio.run(
            run(folder, store, machines, asked.requests, asked.seed, asked.clients)
        )
    print(f"{asked.requests} requests in {time.monotonic() - begun:.0f} s")
    print(*ledger.lines(), sep="\n")
    sys.exit(bool(ledger.problems))


if __name__ == "__main__":
    main()

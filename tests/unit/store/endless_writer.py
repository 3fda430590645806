"""Stores responses until it is killed; prints the id of each once it is stored."""

from __future__ import annotations

import asyncio
import itertools
import sys

from server.store.kinds import Limits
from server.store.store import Store
from tests.unit.store.test_records import item, response

ITEMS = 5


async def main(url: str, name: str) -> None:
    store = Store(url, Limits(bytes=1 << 40, seconds=86_400))
    for index in itertools.count():
        made = response(f"{name}-{index}", previous=f"{name}-{index - 1}" if index else None)
        given = [item(f"{made.id}-{number}", "x" * 5_000) for number in range(ITEMS)]
        await store.write(
            lambda records, made=made, given=given: records.responses.save(made, given, given)  # type: ignore[misc]
        )
        print(made.id, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))

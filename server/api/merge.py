"""Several asynchronous streams as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")

_BUFFERED_ITEMS = 64


async def merge(streams: Sequence[AsyncGenerator[T]], *, at_once: int) -> AsyncGenerator[T]:
    """The items of ``streams`` in the order of their arrival; ``at_once`` streams run together.

    The first exception of one ends all. Closing it closes all of them.
    """
    if len(streams) == 1:  # needs no task and no queue, which cost time for every token
        async with aclosing(streams[0]) as stream:
            async for only in stream:
                yield only
        return
    arrived: asyncio.Queue[tuple[T] | Exception | None] = asyncio.Queue(_BUFFERED_ITEMS)
    gate = asyncio.Semaphore(at_once)

    async def pump(stream: AsyncGenerator[T]) -> None:
        async with gate, aclosing(stream):
            try:
                async for item in stream:
                    await arrived.put((item,))
                await arrived.put(None)
            except Exception as error:
                await arrived.put(error)

    pumps = [asyncio.create_task(pump(stream)) for stream in streams]
    try:
        running = len(pumps)
        while running:
            arrival = await arrived.get()
            if isinstance(arrival, Exception):
                raise arrival
            if arrival is None:
                running -= 1
            else:
                yield arrival[0]
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

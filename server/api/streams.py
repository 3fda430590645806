"""Async iterators of events: merged, begun, and given up when the client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from server.core.events import Accepted, Event

T = TypeVar("T")

_BUFFERED_EVENTS = 64


async def merge(
    streams: Sequence[AsyncGenerator[T]], *, at_once: int
) -> AsyncGenerator[tuple[int, T]]:
    """What ``streams`` yield as it comes, each with its stream's index; ``at_once`` of them run.

    The first exception of one ends all. Closing it closes all of them.
    """
    if len(streams) == 1:  # needs no task and no queue, which cost time for every token
        async with aclosing(streams[0]) as stream:
            async for only in stream:
                yield 0, only
        return
    arrived: asyncio.Queue[tuple[int, T | Exception | None]] = asyncio.Queue(_BUFFERED_EVENTS)
    gate = asyncio.Semaphore(at_once)

    async def pump(index: int, stream: AsyncGenerator[T]) -> None:
        async with gate, aclosing(stream):
            try:
                async for item in stream:
                    await arrived.put((index, item))
                await arrived.put((index, None))
            except Exception as error:
                await arrived.put((index, error))

    pumps = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    try:
        running = len(pumps)
        while running:
            index, item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield index, item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def admitted(
    events: AsyncGenerator[tuple[int, Event]], prompts: int
) -> AsyncGenerator[tuple[int, Event]]:
    """``events`` again, after ``prompts`` of them were `Accepted`: from here on a 200 is true.

    Raises what ``events`` raises before, when no header has been sent yet.
    """
    early = []
    try:
        while prompts:
            event = await anext(events)
            early.append(event)
            prompts -= isinstance(event[1], Accepted)
    except BaseException:
        await events.aclose()
        raise
    return _chain(early, events)


async def _chain(early: list[T], late: AsyncGenerator[T]) -> AsyncGenerator[T]:
    async with aclosing(late):
        for item in early:
            yield item
        async for item in late:
            yield item


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; it is cancelled, and ClientDisconnect raised, if the client goes."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

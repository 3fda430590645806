"""A server on a free port, over a pool without models."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx

from server.api.family import Family
from server.app import FAMILIES, create_app
from server.core.events import Accepted, Delta, Event, Finished
from server.core.request import GenerationRequest
from server.core.settings import Settings
from server.http import transport
from tests.api.fakes import FakePool, usage
from tests.api.wire import CHAT, chat_body


class Running:
    """A server on a free port."""

    def __init__(self, server: transport.Server, port: int, pool: FakePool) -> None:
        self.server = server
        self.port = port
        self.pool = pool
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def raw(self, sent: bytes) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to these bytes, read until the server hangs up."""
        reader, writer = await self.open()
        writer.write(sent)
        received = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    async def canary(self) -> None:
        """A valid request is still answered."""
        response = await self.http.post(CHAT, json=chat_body())
        assert response.status_code == 200

    async def told_while_opening(self, path: str, body: Any) -> str:
        """The streamed answer to ``body``; its model is opened once two comments came."""
        self.pool.may_open.clear()
        told = ""
        async with self.http.stream("POST", path, json=body) as response:
            assert response.status_code == 200
            async for text in response.aiter_text():
                told += text
                if told.count(": ping\n\n") >= 2:
                    self.pool.may_open.set()
        return told

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it is true, for a while at most."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - it is not ours to signal
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    pool: FakePool | None = None,
    families: Sequence[Family] = FAMILIES,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A server over ``pool`` while the context lasts."""
    pool = pool or FakePool()
    chosen = Settings(**{"drain_seconds": 0, **settings})
    ports = [0, *([chosen.metrics_port] if chosen.metrics_port else [])]
    with ExitStack() as open_sockets:
        listeners = [
            open_sockets.enter_context(socket.create_server(("127.0.0.1", port))) for port in ports
        ]
        server = transport.Server(create_app(chosen, pool, families), chosen, pool)
        task = asyncio.create_task(server.serve(sockets=listeners))
        running = Running(server, listeners[0].getsockname()[1], pool)
        await running.until(lambda: server.started)
        try:
            yield running
        finally:
            await running.http.aclose()
            server.should_exit = True
            await asyncio.wait_for(task, 30)


def pausing(before: float, between: float, pieces: int) -> FakePool:
    """A pool whose model takes its time, in seconds."""

    def script(request: GenerationRequest) -> Iterable[Event | float]:
        yield before
        yield Accepted(id=1, prompt_tokens=5)
        for _ in range(pieces):
            yield between
            yield Delta(id=1, index=0, text="x", tokens=1)
        yield Finished(id=1, index=0, reason="stop", usage=usage(pieces))

    return FakePool(script)

"""A front and replicas over fake pools, all in one event loop, on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from server.app import create_app
from server.cluster.affinity.replica_choice import home_of
from server.cluster.announcements import Announcement, announce
from server.cluster.elsewhere import Elsewhere
from server.cluster.front.entrance import Front
from server.cluster.front.membership import Members
from server.cluster.front_only import FrontOnlyMiddleware
from server.cluster.routing import AffinityRouter, Router
from server.core.ids import home
from server.core.settings import Settings
from server.http.transport import Server
from server.store.store import Store
from tests.api.fakes import FakePool, Script, hello

KEY = "the key of the cluster"
WAIT_SECONDS = 30


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


class Replica:
    """A server over a fake pool that reports to a front."""

    def __init__(
        self,
        name: str,
        front: tuple[str, int],
        script: Script,
        *,
        key: str = KEY,
        group: str = "chat",
        pool: FakePool | None = None,
        **settings: Any,
    ) -> None:
        self.name = name
        self.group = group
        self.pool = pool or FakePool(script)
        self.models = [name for entry in self.pool.models() for name in (entry.id, *entry.aliases)]
        self.ready = True
        usual: dict[str, Any] = {"store": False, "files": False}
        # As a replica of its own process has them.
        usual |= {"allowed_hosts": ["*"], "trusted_proxies": ["*"]}
        stated = Settings(**(usual | settings))
        elsewhere = Elsewhere(self.pool)
        app = create_app(stated, self.pool, elsewhere=elsewhere)
        self.drain = app.state.context.drain
        self.store: Store = app.state.context.store
        app.add_middleware(
            FrontOnlyMiddleware, key=key, drain=self.drain, respond=app.state.error_responses
        )
        self.server = Server(app, stated, self.pool)
        self.socket = listener()
        self.port = self.socket.getsockname()[1]
        token = home.set(home_of(name))
        self._serving = asyncio.create_task(self.server._serve(sockets=[self.socket]))
        home.reset(token)
        self._announcing = asyncio.create_task(
            announce(front, key, self.announcement, elsewhere.hear)
        )

    def announcement(self) -> Announcement:
        return Announcement(
            id=self.name,
            group=self.group,
            host="127.0.0.1",
            port=self.port,
            models=self.models,
            ready=self.ready and self.server.listening.is_set(),
            draining=self.drain.begun,
        )

    async def kill(self) -> None:
        """End as by SIGKILL: all connections are reset, nothing is said."""
        self._announcing.cancel()
        for each in self.server.servers:
            each.close()
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()
        await asyncio.gather(self._announcing, return_exceptions=True)

    async def stop(self) -> None:
        self._announcing.cancel()
        self.server.force_exit = self.server.should_exit = True
        await asyncio.gather(self._announcing, self._serving, return_exceptions=True)


class Cluster:
    """A front, and the replicas that a test adds; ``served`` is what its file says of groups."""

    def __init__(
        self,
        router: Router | None = None,
        served: Mapping[str, Sequence[str]] | None = None,
        **settings: Any,
    ) -> None:
        self.members = Members(KEY, served or {}, silent_seconds=WAIT_SECONDS)
        stated = Settings(allow_unauthenticated=True, drain_seconds=5, **settings)
        self.front = Front(
            stated,
            self.members,
            router or AffinityRouter(),
            groups=["chat"],
            key=KEY,
            most_bytes=1 << 20,
        )
        self.server = Server(self.front, stated, self.front)
        self.replicas: list[Replica] = []
        self._heard = listener()
        self.address: tuple[str, int] = self._heard.getsockname()
        self.socket = listener()
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    async def start(self) -> None:
        self.hearing = await asyncio.start_server(self.members.hear, sock=self._heard)
        self.serving = asyncio.create_task(self.server._serve(sockets=[self.socket]))
        await self.server.listening.wait()

    async def add(self, name: str, script: Script = hello, **settings: Any) -> Replica:
        """A replica that serves."""
        replica = Replica(name, self.address, script, **settings)
        self.replicas.append(replica)
        await until(lambda: any(m.said.id == name and m.serving for m in self.members.all()))
        return replica

    async def stop(self) -> None:
        for replica in self.replicas:
            await replica.stop()
        self.hearing.close()
        self.members.close()
        self.server.force_exit = self.server.should_exit = True
        await self.serving


class Asked:
    """How many requests came."""

    count = 0


@asynccontextmanager
async def answering(cluster: Cluster, name: str, answer: bytes) -> AsyncIterator[Asked]:
    """A replica that gives every request the same bytes for an answer."""
    asked = Asked()
    writers = []

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                asked.count += 1
                writer.write(answer)
                await writer.drain()

    server = await asyncio.start_server(answer_all, "127.0.0.1", 0)
    said = Announcement(
        id=name,
        group="chat",
        host="127.0.0.1",
        port=server.sockets[0].getsockname()[1],
        models=["test"],
        ready=True,
        draining=False,
    )
    announcing = asyncio.create_task(
        announce(cluster.address, KEY, lambda: said, lambda served: None)
    )
    await until(lambda: any(member.said.id == name for member in cluster.members.all()))
    try:
        yield asked
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
        server.close()
        for writer in writers:
            writer.close()
        await until(lambda: all(member.said.id != name for member in cluster.members.all()))


async def until(condition: Any) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 nothing tells of the change
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(router: Router | None = None, **settings: Any) -> AsyncIterator[Cluster]:
    cluster = Cluster(router, **settings)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()


@asynccontextmanager
async def client(cluster: Cluster) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=cluster.url, timeout=WAIT_SECONDS) as http:
        yield http

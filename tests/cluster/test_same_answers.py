"""What clients really send gets through a front the answers that one server gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
import pytest

from server.cluster.tables import FRONT_SETTINGS
from server.core.events import Accepted, Delta, Event
from server.core.request import GenerationRequest
from server.http import transport
from tests.api.habits import CHAT, HABITS, HELLO, Habit
from tests.cluster import in_process
from tests.cluster.in_process import Cluster, until

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
BODY = {"model": "test", "messages": HELLO}


def split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of one server as those of a front and of its replicas."""
    front = {name: value for name, value in settings.items() if name in FRONT_SETTINGS}
    return front, {name: value for name, value in settings.items() if name not in front}


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.name)
async def test_a_habit_of_clients_gets_its_answer(habit: Habit) -> None:
    front, replica = split(habit.settings)
    body = {**BODY, **habit.fields} if habit.method == "POST" else None
    async with (
        in_process.running(**front) as cluster,
        in_process.client(cluster) as http,
    ):
        await cluster.add("a", **replica)
        response = await http.request(
            habit.method, habit.path, headers=dict(habit.headers), json=body
        )
        assert (await http.post(CHAT, json=BODY)).status_code == 200
    assert response.status_code == habit.status, response.text
    assert habit.says in response.text
    for name, value in habit.has.items():
        assert response.headers[name] == value


async def raw(cluster: Cluster, sent: bytes) -> bytes:
    """The answer to these bytes, read until the front hangs up."""
    reader, writer = await asyncio.open_connection(*cluster.socket.getsockname())
    writer.write(sent)
    received = await asyncio.wait_for(reader.read(), in_process.WAIT_SECONDS)
    writer.close()
    return received


@pytest.mark.parametrize(
    "sent",
    [
        HEAD,
        HEAD + b"content-type: application/json\r\ncontent-length: 500\r\n\r\n{}",
    ],
    ids=["a head that does not end", "a body shorter than it says"],
)
async def test_a_client_that_sends_too_slowly_gets_408(sent: bytes) -> None:
    async with in_process.running(request_timeout=0.2) as cluster:
        replica = await cluster.add("a")
        assert b" 408 " in (await raw(cluster, sent)).partition(b"\r\n")[0]
        assert replica.pool.client.requests == []


async def test_a_body_over_the_limit_is_413() -> None:
    async with in_process.running() as cluster, in_process.client(cluster) as http:
        await cluster.add("a", max_body_bytes=2_000_000)
        response = await http.post(CHAT, json={**BODY, "user": "x" * 2_100_000})
        assert response.status_code == 413


def endless(request: GenerationRequest) -> Iterable[Event | float]:
    yield Accepted(id=1, prompt_tokens=5)
    yield 3600.0


async def test_too_many_busy_connections_are_503() -> None:
    async with (
        in_process.running(max_connections=2) as cluster,
        in_process.client(cluster) as http,
        in_process.client(cluster) as other,
    ):
        replica = await cluster.add("a", endless)
        async with contextlib.AsyncExitStack() as streams:
            for _ in range(2):
                stream = http.stream("POST", CHAT, json={**BODY, "stream": True})
                await streams.enter_async_context(stream)
            response = await other.get("/health")
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "overloaded"
        await until(lambda: replica.pool.client.running == 0)


async def test_a_client_that_does_not_read_is_dropped_and_its_replica_freed(
    cluster: Cluster, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "STALLED_SECONDS", 0.2)

    def flood(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        while True:
            yield Delta(id=1, index=0, text="x" * 10_000, tokens=1)

    replica = await cluster.add("a", flood)
    _, writer = await asyncio.open_connection(*cluster.socket.getsockname())
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    content = json.dumps({**BODY, "stream": True}).encode()
    kind = b"content-type: application/json\r\n"
    writer.write(HEAD + kind + b"content-length: %d\r\n\r\n" % len(content) + content)
    await until(lambda: replica.pool.client.running == 1)
    await until(lambda: replica.pool.client.running == 0)
    writer.transport.abort()
    assert (await http.get("/health")).status_code == 200

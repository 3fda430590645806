"""A response is stored once, however many replicas are lost while they make it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from server.cluster.affinity.replica_choice import home_of
from server.core.request import ChatPrompt
from server.store.records import Records
from tests.cluster.in_process import Cluster, Replica


@pytest.fixture
def shared(tmp_path: Path) -> dict[str, Any]:
    """Settings of replicas with one store."""
    return {"store": True, "store_url": f"sqlite:///{tmp_path}/store.db"}


Write = Callable[[Callable[[Records], Any]], Awaitable[Any]]


def instead_of_writing(replica: Replica, act: Callable[[Write, Any], Awaitable[Any]]) -> None:
    """Have a replica do something else where it would store an answer."""
    write = replica.store.write

    async def acting(work: Callable[[Records], Any]) -> Any:
        return await act(write, work)

    replica.store.write = acting  # type: ignore[method-assign]


def stored(replica: Replica) -> list[str]:
    """The ids of all responses in the store."""

    def ids(records: Records) -> list[str]:
        return [msgspec.json.decode(each["id"], type=str) for each in records.upkeep.export()]

    return replica.store.transact(ids, writes=False)


async def test_what_a_lost_replica_stored_goes_when_another_answers(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    lost = await cluster.add("a", **shared)
    other = await cluster.add("b", **shared)

    async def store_and_die(write: Write, work: Any) -> None:
        await write(work)
        await lost.kill()

    instead_of_writing(lost, store_and_die)
    response = await http.post("/v1/responses", json={"model": "test", "input": "hi"})
    assert response.headers["x-dragoman-replica"] == "b"
    assert len(lost.pool.client.requests) == 1
    assert stored(other) == [response.json()["id"]]


async def test_what_a_lost_replica_stores_later_is_not_kept(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    """It may live on without its network, and reach the store again before it ends."""
    lost = await cluster.add("a", **shared)
    other = await cluster.add("b", **shared)
    answered, over = asyncio.Event(), asyncio.Event()

    async def die_and_store(write: Write, work: Any) -> None:
        await lost.kill()
        await answered.wait()
        await write(work)
        over.set()

    instead_of_writing(lost, die_and_store)
    response = await http.post("/v1/responses", json={"model": "test", "input": "hi"})
    answered.set()
    await over.wait()
    assert stored(other) == [response.json()["id"]]


async def test_a_conversation_has_a_turn_once(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    lost = await cluster.add("a", **shared)
    other = await cluster.add("b", **shared)
    name = (await http.post("/v1/conversations", json={})).json()["id"]

    async def store_and_die(write: Write, work: Any) -> None:
        await write(work)
        await lost.kill()

    instead_of_writing(lost, store_and_die)
    body = {"model": "test", "input": "hi", "conversation": name}
    response = await http.post("/v1/responses", json=body)
    assert response.headers["x-dragoman-replica"] == "b"
    items = (await http.get(f"/v1/conversations/{name}/items")).json()["data"]
    assert [item["role"] for item in items] == ["assistant", "user"]
    [asked] = other.pool.client.requests
    assert isinstance(asked.prompt, ChatPrompt)
    assert [message.role for message in asked.prompt.messages] == ["user"]


async def test_the_id_of_a_response_names_its_replica(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    await cluster.add("a", **shared)
    replica = await cluster.add("b", **shared)
    first = (await http.post("/v1/responses", json={"model": "test", "input": "hi"})).json()["id"]
    second = (await http.post("/v1/responses", json={"model": "test", "input": "hi"})).json()["id"]
    assert first != second
    assert first[-6:] == second[-6:] == home_of("a") != home_of(replica.name)


async def test_clients_do_not_name_attempts(
    cluster: Cluster, http: httpx.AsyncClient, shared: dict[str, Any]
) -> None:
    await cluster.add("a", **shared)
    first = (await http.post("/v1/responses", json={"model": "test", "input": "hi"})).json()["id"]
    named = {"x-dragoman-attempts": f"{first.removeprefix('resp_')},mine"}
    body = {"model": "test", "input": "hi"}
    second = await http.post("/v1/responses", json=body, headers=named)
    assert second.json()["id"] != "resp_mine"
    assert (await http.get(f"/v1/responses/{first}")).status_code == 200

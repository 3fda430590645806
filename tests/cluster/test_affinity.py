"""The turns of a session come to one replica."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.cluster.front import upstream
from tests.cluster import in_process
from tests.cluster.in_process import WAIT_SECONDS, Cluster

SESSIONS = 8
TURNS = 4
SYSTEM = "You are an agent. " * 100

Session = Callable[[httpx.AsyncClient, int], Awaitable[list[str]]]


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(upstream, "CONNECT_SECONDS", WAIT_SECONDS)
    async with in_process.running() as started:
        for name in ("one", "two", "three"):
            await started.add(name, store=True, store_url=f"sqlite:///{tmp_path}/store.db")
        yield started


async def ask(http: httpx.AsyncClient, path: str, **request: Any) -> httpx.Response:
    response = await http.post(path, **request)
    assert response.status_code == 200, response.text
    return response


def replica_of(response: httpx.Response) -> str:
    return response.headers["x-dragoman-replica"]


async def by_header(http: httpx.AsyncClient, number: int) -> list[str]:
    """Requests that have nothing in common but the header of Claude Code."""
    places = []
    for turn in range(TURNS):
        headers = {"x-claude-code-session-id": f"session {number}"}
        said = [{"role": "user", "content": f"{number} {turn}"}]
        body = {"model": "test", "messages": said, "max_tokens": 9}
        places.append(replica_of(await ask(http, "/v1/messages", json=body, headers=headers)))
    return places


async def by_chain(http: httpx.AsyncClient, number: int) -> list[str]:
    """A chat of an agent whose system prompt all others have too."""
    said: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Question {number}."},
    ]
    places = []
    for turn in range(TURNS):
        body = {"model": "test", "messages": said}
        response = await ask(http, "/v1/chat/completions", json=body)
        places.append(replica_of(response))
        answer = response.json()["choices"][0]["message"]
        said += [answer, {"role": "user", "content": f"And {turn}?"}]
    return places


async def by_previous_response(http: httpx.AsyncClient, number: int) -> list[str]:
    """Responses that are stored, each the next of the one before."""
    places, body = [], {"model": "test", "input": f"Question {number}."}
    for turn in range(TURNS):
        response = await ask(http, "/v1/responses", json=body)
        places.append(replica_of(response))
        body |= {"input": f"And {turn}?", "previous_response_id": response.json()["id"]}
    return places


async def by_conversation(http: httpx.AsyncClient, number: int) -> list[str]:
    """Turns of one conversation that is stored."""
    made = await ask(http, "/v1/conversations", json={})
    places = []
    for turn in range(TURNS):
        body = {"model": "test", "input": f"{number} {turn}", "conversation": made.json()["id"]}
        places.append(replica_of(await ask(http, "/v1/responses", json=body)))
    return places


@pytest.mark.parametrize("session", [by_header, by_chain])
async def test_all_turns_of_a_session_come_to_one_replica(
    http: httpx.AsyncClient, session: Session
) -> None:
    sessions = [await session(http, number) for number in range(SESSIONS)]
    assert all(len({*places}) == 1 for places in sessions)
    assert len({places[0] for places in sessions}) > 1


@pytest.mark.parametrize("session", [by_previous_response, by_conversation])
async def test_what_goes_on_from_something_stored_comes_to_one_replica(
    http: httpx.AsyncClient, session: Session
) -> None:
    for number in range(SESSIONS // 2):
        assert len({*await session(http, number)}) == 1


async def test_a_session_goes_on_elsewhere_when_its_replica_is_lost(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    place, *_ = await by_chain(http, 1)
    await next(each for each in cluster.replicas if each.name == place).kill()
    after = await by_chain(http, 1)
    assert place not in after
    assert len({*after}) == 1

"""Pulls of models over HTTP, in our own form and in Ollama's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from server.app import create_app
from server.core.settings import Settings
from tests.api.fakes import FakePool
from tests.api.pulling import FakePulls
from tests.api.wire import assert_error


@pytest.fixture
def pulls() -> FakePulls:
    return FakePulls()


@pytest.fixture
async def client(pulls: FakePulls) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that pulls models."""
    app = create_app(Settings(), FakePool(), pulls=pulls)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client
    await app.state.context.store.close()


async def test_a_pull_is_started_watched_and_cancelled(
    client: httpx.AsyncClient, pulls: FakePulls
) -> None:
    started = await client.post("/v1/pulls", json={"model": "hf:owner/repo"})
    assert started.status_code == 202
    pull = started.json()
    assert pull["object"] == "pull"
    assert (pull["model"], pull["state"], pull["total"]) == ("hf:owner/repo", "running", 0)
    pulls.change(pull["id"], done=5, total=10, speed=2.5)
    there = (await client.get(f"/v1/pulls/{pull['id']}")).json()
    assert (there["done"], there["total"], there["speed"]) == (5, 10, 2.5)
    assert (await client.get("/v1/pulls")).json()["data"] == [there]
    cancelled = (await client.post(f"/v1/pulls/{pull['id']}/cancel")).json()
    assert cancelled["state"] == "cancelled"


async def test_the_catalog_lists_what_has_a_name(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/catalog")).json() == {
        "object": "list",
        "data": [
            {
                "name": "small",
                "description": "A small model",
                "kind": "base",
                "licence": "MIT",
                "bytes": 98_000_000,
            }
        ],
    }


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": 5}, {"model": "nonsense"}])
async def test_a_bad_pull_is_refused_with_its_place(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    assert_error(await client.post("/v1/pulls", json=body), 400, param="model")


async def test_a_name_beyond_all_bounds_is_refused(client: httpx.AsyncClient) -> None:
    long = "x" * 513
    assert_error(await client.post("/v1/pulls", json={"model": long}), 400, param="model")
    for field in ("model", "name"):
        refused = await client.post("/api/pull", json={field: long})
        assert refused.status_code == 400
        assert refused.json()["error"].startswith(field)


async def test_an_unknown_pull_is_not_found(client: httpx.AsyncClient) -> None:
    assert_error(await client.get("/v1/pulls/x"), 404, code="not_found")
    assert_error(await client.post("/v1/pulls/x/cancel"), 404, code="not_found")


async def test_a_server_that_pulls_nothing_says_so(http: httpx.AsyncClient) -> None:
    for path in ("/v1/catalog", "/v1/pulls"):
        assert (await http.get(path)).json() == {"object": "list", "data": []}
    for method, path in (("POST", "/v1/pulls"), ("POST", "/v1/pulls/x/cancel")):
        refused = await http.request(method, path, json={"model": "x"})
        assert "pulls no models" in assert_error(refused, 403, code="forbidden")


async def test_pulls_need_a_key_and_end_with_the_application() -> None:
    pulls = FakePulls()
    app = create_app(Settings(api_keys=["secret"]), FakePool(), pulls=pulls)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        for method, path in (("GET", "/v1/catalog"), ("POST", "/v1/pulls"), ("POST", "/api/pull")):
            assert (await client.request(method, path)).status_code == 401
    async with app.router.lifespan_context(app):
        pass
    assert pulls.closed


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.api.native.ollama._LOOK_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_ollamas_stream_tells_of_the_progress(
    client: httpx.AsyncClient, pulls: FakePulls
) -> None:
    pulls.steps = [
        {"done": 4, "total": 9},
        {},
        {"done": 9, "stage": "verify"},
        {"state": "done", "file": "repo.gguf"},
    ]
    response = await client.post("/api/pull", json={"model": "hf.co/owner/repo"})
    lines = [json.loads(line) for line in response.text.splitlines()]
    progress = lines[1]
    assert progress["digest"].startswith("sha256:")
    assert [line["status"] for line in lines] == [
        "pulling manifest",
        "pulling hf.co/owner/repo",
        "verifying sha256 digest",
        "success",
    ]
    assert (progress["completed"], progress["total"]) == (4, 9)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("end", "whole"),
    [
        ({"state": "failed", "error": "No."}, 404),
        ({"state": "failed", "error": "It is away.", "unreachable": True}, 502),
        ({"state": "cancelled"}, 404),
    ],
)
async def test_ollama_is_told_of_a_pull_that_fails(
    client: httpx.AsyncClient, pulls: FakePulls, end: dict[str, Any], whole: int
) -> None:
    for stream, status in ((True, 200), (False, whole)):
        pulls.steps = [end]
        response = await client.post("/api/pull", json={"model": "x", "stream": stream})
        assert response.status_code == status
        last = json.loads(response.text.splitlines()[-1])
        assert last["error"] == end.get("error", "The pull of x was cancelled.")


async def test_ollama_is_told_of_a_model_that_cannot_be(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/pull", json={"model": "nonsense", "stream": False})
    assert response.status_code == 404
    assert response.json()["error"] == "The catalog has no model 'nonsense'."


@pytest.mark.usefixtures("at_once")
async def test_ollama_waits_for_the_end_where_it_wants_no_stream(
    client: httpx.AsyncClient, pulls: FakePulls
) -> None:
    pulls.steps = [{"done": 1, "total": 2}, {"state": "done", "file": "x.gguf"}]
    response = await client.post("/api/pull", json={"name": "x", "stream": False})
    assert response.json() == {"status": "success"}

"""``HEAD`` is ``GET`` without a body, on every path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute

from server.api.family import Family
from server.app import FAMILIES
from tests.api.fakes import FakePool
from tests.api.serving import serving
from tests.api.wire import CHAT

Connect = Callable[..., httpx.AsyncClient]

PATHS = [
    "/",
    "/playground/app.js",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/openapi.json",
    "/api/version",
    "/api/tags",
    "/v1/models",
    "/v1/models/test",
    "/v1/models/none",
    "/v1/responses",
    "/v1/responses/resp_none",
    "/v1/responses/resp_none/input_items",
    "/v1/conversations/conv_none",
    "/v1/conversations/conv_none/items",
    "/v1/conversations/conv_none/items/msg_none",
    "/v1/files",
    "/v1/files/file-none",
    "/v1/files/file-none/content",
    "/lora-adapters",
    "/v1/catalog",
    "/v1/pulls",
    "/v1/pulls/pull_none",
    "/v1/batches",
    "/v1/messages/batches",
    "/v1/messages/batches/msgbatch_none",
    "/v1/messages/batches/msgbatch_none/results",
    "/v1/batches/batch_none",
    CHAT,
    "/no/such/path",
]
# These differ from answer to answer.
VARYING = {"x-request-id", "request-id", "openai-processing-ms", "content-length", "date"}


@pytest.mark.parametrize("path", PATHS)
async def test_its_answer_is_that_of_get_without_the_body(
    http: httpx.AsyncClient, path: str
) -> None:
    got, head = await http.get(path), await http.head(path)
    assert head.status_code == got.status_code
    assert head.content == b""
    assert head.headers.keys() == got.headers.keys()
    kept = got.headers.keys() - VARYING
    assert {name: head.headers[name] for name in kept} == {name: got.headers[name] for name in kept}
    if path != "/metrics":
        assert head.headers["content-length"] == got.headers["content-length"]


def test_every_path_that_can_be_read_is_tried() -> None:
    routes = [route for family in FAMILIES for router in family.routers for route in router.routes]
    read = [each for each in routes if isinstance(each, APIRoute) and "GET" in (each.methods or ())]
    for route in read:
        assert any(route.path_regex.match(path) for path in PATHS), route.path


async def test_it_needs_a_key_and_a_name_of_this_machine_too(connect: Connect) -> None:
    http = connect(api_keys=["secret"])
    refused = await http.head("/v1/models")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert (await http.head("/health")).status_code == 200
    foreign = await http.head("/health", headers={"host": "evil.example"})
    assert foreign.status_code == 403


async def test_it_is_counted_under_its_own_name(http: httpx.AsyncClient) -> None:
    await http.head("/v1/models")
    metrics = (await http.get("/metrics")).text
    assert 'dragoman_requests_total{method="HEAD",route="/v1/models",status="200"} 1.0' in metrics


async def test_the_description_has_it_not(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert not any("head" in path for path in paths.values())


@pytest.mark.process
async def test_connections_stay_in_step_behind_it() -> None:
    async with serving() as running:
        reader, writer = await running.open()
        for path in ("/health", "/v1/models", "/none"):
            writer.write(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    heads = received.split(b"\r\n\r\n")
    assert [head.split()[1] for head in heads[:4]] == [b"200", b"200", b"404", b"200"]
    assert heads[4] == b'{"status":"ok"}'
    assert len(heads) == 5


@pytest.mark.process
async def test_the_head_of_a_stream_does_not_wait_for_its_end() -> None:
    router = APIRouter()

    @router.get("/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

        return StreamingResponse(pieces())

    async with serving(FakePool(), (*FAMILIES, Family(routers=[router]))) as running:
        response = await running.http.head("/endless", timeout=30)
        assert response.status_code == 200
        await running.canary()
        assert len(running.server.server_state.tasks) == 0

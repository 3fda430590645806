"""A response shows that it lives while nothing of it is there yet, and how it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest

from server.core.errors import ContextLengthExceeded, QueueFull
from server.core.events import Event
from server.core.request import GenerationRequest
from tests.api.fakes import FakePool, hello
from tests.api.responses.wire import raw, read_events, response_body, types
from tests.api.serving import serving

Connect = Callable[..., httpx.AsyncClient]


async def events(http: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    answered = await raw(http, stream=True, store=False, **fields)
    # Behind the last event a comment may come: it is no event.
    assert ": ping" not in answered.text.partition("event: response.failed")[0]
    return read_events(answered.content)


async def test_in_progress_is_repeated_while_the_model_loads_and_reads(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        yield 0.3
        yield from hello(request)

    pool = FakePool(script)
    pool.opening_seconds = 0.3
    found = await events(connect(pool, ping_seconds=0.1), model="alias")
    assert types(found)[:3] == ["created", "in_progress", "in_progress"]
    assert types(found).count("created") == 1
    assert types(found).count("in_progress") >= 4
    assert found[0]["response"]["model"] == "alias"
    assert found[-1]["response"]["model"] == "test"
    assert found[-1]["response"]["status"] == "completed"


async def test_events_stay_in_order_when_one_comes_with_the_sign_of_life(
    connect: Connect,
) -> None:
    pool = FakePool(lambda _: [0.2, QueueFull("Full.")])
    for _ in range(3):  # both are due at the same moment
        found = await events(connect(pool, ping_seconds=0.1))
        assert types(found)[-1] == "failed"


async def test_in_progress_is_repeated_between_tokens(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        accepted, first, *rest = hello(request)
        yield accepted
        yield first
        yield 0.35
        yield from rest

    found = await events(connect(FakePool(script), ping_seconds=0.1))
    begun = types(found).index("output_text.delta")
    assert "in_progress" in types(found)[begun:]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ContextLengthExceeded("Too long.", at=("prompt",)), "context_length_exceeded", "Too long"),
        (QueueFull("Full.", retry_after=3.2), "rate_limit_exceeded", "try again in 3.2s"),
    ],
)
async def test_an_error_after_the_headers_is_a_failed_response(
    connect: Connect, error: Exception, code: str, words: str
) -> None:
    pool = FakePool(lambda _: [0.15, error])
    found = await events(connect(pool, ping_seconds=0.1))
    assert types(found) == ["created", "in_progress", "failed"]
    assert found[-1]["response"]["error"]["code"] == code
    assert words in found[-1]["response"]["error"]["message"]


@pytest.mark.process
async def test_the_offer_of_a_websocket_is_declined_with_426() -> None:
    head = (
        "GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with serving() as running:
        status, body = await running.raw(head.encode())
        assert (status, body["error"]["code"]) == (426, "upgrade_required")
        offer = {"connection": "Upgrade", "upgrade": "websocket"}
        declined = await running.http.get("/v1/responses", headers=offer)
        assert declined.headers["upgrade"] == "HTTP/1.1"
        assert declined.headers["connection"] == "upgrade"
        answered = await running.http.post("/v1/responses", json=response_body())
        assert answered.status_code == 200


async def test_get_is_not_allowed(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/responses")).status_code == 405

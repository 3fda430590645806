"""Over real connections: what clients do to HTTP, and what happens when they leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from server.core.errors import ModelUnavailable, Overloaded
from server.core.events import Accepted, Delta, Event, Failed
from server.core.request import GenerationRequest
from server.http import transport
from tests.api.anthropic.test_context_edits import ALWAYS, CALLS, TOOL_USES
from tests.api.fakes import FakePool, answer
from tests.api.serving import pausing, serving
from tests.api.wire import CHAT, COMPLETIONS, assert_error, chat_body, completion_body, events

pytestmark = pytest.mark.process

RESPONSE = {"model": "test", "input": "hi", "stream": True, "max_output_tokens": 10**6}
REQUEST_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
JSON_HEAD = REQUEST_HEAD + b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        JSON_HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        JSON_HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        JSON_HEAD + b"Content-Length: -5\r\n\r\n{}",
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
async def test_what_is_no_http_is_400_in_our_shape(sent: bytes) -> None:
    async with serving(request_timeout=0.5) as running:
        status, body = await running.raw(sent)
        assert status == 400
        assert body["error"]["type"] == "invalid_request_error"
        await running.canary()


async def test_a_body_shorter_than_it_says_is_408() -> None:
    async with serving(request_timeout=0.1) as running:
        status, body = await running.raw(
            JSON_HEAD + b"Connection: close\r\nContent-Length: 500\r\n\r\n{}"
        )
        assert (status, body["error"]["code"]) == (408, "request_timeout")
        await running.canary()


async def test_a_head_that_does_not_end_is_408() -> None:
    async with serving(request_timeout=0.1) as running:
        status, body = await running.raw(REQUEST_HEAD)
        assert (status, body["error"]["code"]) == (408, "request_timeout")
        await running.canary()


@pytest.mark.parametrize(
    "sent",
    [
        REQUEST_HEAD + b"X-Flood: " + b"a" * 100_000,
        REQUEST_HEAD + b"X-Flood: a\r\n" * 5_000 + b"\r\n",
        b"GET /" + b"a" * 100_000,
    ],
)
async def test_a_flood_of_headers_is_431(sent: bytes) -> None:
    async with serving() as running:
        status, body = await running.raw(sent)
        assert (status, body["error"]["code"]) == (431, "headers_too_large")
        await running.canary()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (REQUEST_HEAD, 408),
        (REQUEST_HEAD + b"X-Flood: " + b"a" * 100_000, 431),
    ],
)
async def test_what_is_refused_below_the_application_is_counted_and_logged(
    caplog: pytest.LogCaptureFixture, sent: bytes, status: int
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(request_timeout=0.2) as running:
        assert (await running.raw(sent))[0] == status
        metrics = (await running.http.get("/metrics")).text
    counted = f'dragoman_requests_total{{method="-",route="unmatched",status="{status}"}} 1.0'
    assert counted in metrics
    lines = [r.getMessage() for r in caplog.records if r.name == "dragoman.access"]
    assert any(line.startswith(f"127.0.0.1 - - {status} ") for line in lines)


async def test_a_body_that_turns_to_nonsense_is_400_and_counted_once() -> None:
    async with serving() as running:
        reader, writer = await running.open()
        writer.write(JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"nonsense\r\n")
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")
        metrics = (await running.http.get("/metrics")).text
    counted = [line for line in metrics.splitlines() if line.startswith("dragoman_requests_total{")]
    assert len(counted) == 1
    assert 'method="POST"' in counted[0]
    assert 'status="400"' in counted[0]


async def test_nonsense_behind_a_request_does_not_get_into_its_answer() -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        first, *rest = answer(request, "a", "b")
        yield first
        for event in rest:
            yield 0.2
            yield event

    body = json.dumps(chat_body(stream=True)).encode()
    head = JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    async with serving(FakePool(script)) as running:
        reader, writer = await running.open()
        writer.write(head + body)
        received = await asyncio.wait_for(reader.readuntil(b"data: "), 30)
        writer.write(b"nonsense\r\n\r\n")
        received += await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert received.count(b"HTTP/1.1 ") == 1
        await running.canary()


async def test_a_body_of_100_mb_is_413_while_it_streams() -> None:
    async with serving() as running:
        reader, writer = await running.open()
        writer.write(JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n" % 2**20 + b" " * 2**20 + b"\r\n"
        sent = 0
        while not reader._buffer and sent < 100:  # type: ignore[attr-defined]
            writer.write(chunk)
            await writer.drain()
            sent += 1
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        writer.close()
        assert b" 413 " in head
        assert sent < 60
        await running.canary()


async def test_half_open_connections_do_not_keep_others_out() -> None:
    async with serving(max_connections=50) as running:
        half_open = []
        for _ in range(120):
            _, writer = await running.open()
            writer.write(b"POST / HTTP/1.1\r\nHo")
            half_open.append(writer)
        response = await running.http.get("/health")
        assert response.status_code == 200
        assert len(running.server.server_state.connections) <= 52
        for writer in half_open:
            writer.close()


async def test_too_many_busy_connections_are_503() -> None:
    def endless(request: GenerationRequest) -> Iterable[Event | float]:
        yield Accepted(id=1, prompt_tokens=5)
        yield 60.0

    async with serving(FakePool(endless), max_connections=2) as running:
        async with contextlib.AsyncExitStack() as streams:
            for _ in range(2):
                await streams.enter_async_context(
                    running.http.stream("POST", CHAT, json=chat_body(stream=True))
                )
            async with httpx.AsyncClient() as other:
                response = await other.get(f"http://127.0.0.1:{running.port}/health")
            assert_error(response, 503, type_="server_error", code="overloaded")
            assert response.headers["retry-after"] == "1"
            assert response.headers["x-request-id"].startswith("req_")
        await running.until(lambda: running.pool.client.running == 0)


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with serving() as running:
        reader, writer = await running.open()
        for _ in range(3):
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            assert b" 200 " in head
            await reader.readexactly(len(b'{"status":"ok"}'))
        writer.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("before", "between"), [(60, 0), (0, 60), (0, 0.005)], ids=["queued", "prefill", "decode"]
)
async def test_a_client_that_leaves_cancels_its_request_at_once(
    before: float, between: float, path: str, stream: bool
) -> None:
    body = (chat_body if path == CHAT else completion_body)(stream=stream)
    pool = pausing(before, between, 10**6)
    async with serving(pool) as running:
        content = json.dumps(body).encode()
        _, writer = await running.open()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await running.until(lambda: pool.client.running == 1)
        await asyncio.sleep(0.03)
        writer.transport.abort()
        await running.until(lambda: pool.client.running == 0)
        assert pool.client.cancelled == 1


async def test_a_client_that_leaves_while_the_model_loads_stops_nothing_else() -> None:
    pool = FakePool()
    pool.opening_seconds = 0.5
    async with serving(pool) as running:
        with pytest.raises(httpx.ReadTimeout):
            await running.http.post(CHAT, json=chat_body(), timeout=httpx.Timeout(30, read=0.05))
        await running.canary()
        assert len(pool.client.requests) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, chat_body(stream=True)), (COMPLETIONS, completion_body(stream=True))],
)
async def test_comments_tell_that_a_model_loads(path: str, body: Any) -> None:
    async with serving(ping_seconds=0.05) as running:
        told = await running.told_while_opening(path, body)
        comments, data = told.split("data: ", 1)
        assert comments.count(": ping\n\n") >= 2
        assert data.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (CHAT, chat_body(stream=True, max_tokens=10**6), "max_tokens=2048"),
        ("/v1/responses", RESPONSE, "max_output_tokens=2048"),
        ("/v1/messages", chat_body(stream=True, max_tokens=10**6), "max_tokens=2048"),
    ],
)
async def test_what_headers_would_say_of_a_model_that_loads_is_a_comment(
    path: str, body: Any, said: str
) -> None:
    pool = FakePool()
    pool.opening_seconds = 1
    async with serving(pool, ping_seconds=0.05) as running:
        late = await running.http.post(path, json=body)
        pool.opening_seconds = 0
        early = await running.http.post(path, json=body)
    assert "x-dragoman-clamped" not in late.headers
    assert late.text.count(f"\n\n: x-dragoman-clamped: {said}\n\n") == 1
    assert early.headers["x-dragoman-clamped"] == said
    assert ": x-dragoman" not in early.text


@pytest.mark.parametrize(("seconds", "status"), [(0, 503), (0.3, 200)])
async def test_a_model_that_fails_to_load_is_a_status_or_an_event_of_a_begun_stream(
    seconds: float, status: int
) -> None:
    pool = FakePool()
    pool.opening_seconds = seconds
    pool.opening_error = ModelUnavailable("It does not fit.")
    async with serving(pool, ping_seconds=0.1) as running:
        response = await running.http.post(CHAT, json=chat_body(stream=True))
        assert response.status_code == status
        body = response.json() if status == 503 else json.loads(events(response.text)[-1])
        assert body["error"]["code"] == "model_unavailable"
        assert "[DONE]" not in response.text


async def test_a_client_that_leaves_a_stream_while_the_model_loads_is_forgotten() -> None:
    pool = FakePool()
    pool.opening_seconds = 0.4
    async with serving(pool, ping_seconds=0.05) as running:
        _, writer = await running.open()
        content = json.dumps(chat_body(stream=True)).encode()
        writer.write(JSON_HEAD + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await asyncio.sleep(0.2)
        writer.transport.abort()
        await asyncio.sleep(0.4)
        assert pool.client.requests == []
        await running.canary()


async def test_counting_ends_when_the_client_goes() -> None:
    """With an edit, several prompts are rendered for one count."""
    management = {"edits": [{"type": TOOL_USES, "trigger": ALWAYS}]}
    wanted = {"model": "test", "messages": CALLS, "context_management": management}
    pool = FakePool()
    pool.client.rendering_seconds = 0.2
    async with serving(pool) as running:
        timeout = httpx.Timeout(30, read=0.05)
        with pytest.raises(httpx.ReadTimeout):
            await running.http.post("/v1/messages/count_tokens", json=wanted, timeout=timeout)
        await asyncio.sleep(0.3)
        await running.canary()
    assert len(pool.client.rendered) == 1


async def test_comments_keep_a_silent_stream_alive() -> None:
    async with serving(pausing(0, 0.2, 1), ping_seconds=0.05) as running:
        response = await running.http.post(CHAT, json=chat_body(stream=True))
        assert response.text.count(": ping\n\n") >= 2
        assert events(response.text)[-1] == "[DONE]"
        assert "\r" not in response.text
        assert "\nid:" not in response.text


async def test_a_reader_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STALLED_SECONDS", 0.2)

    def flood(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        while True:
            yield Delta(id=1, index=0, text="x" * 10_000, tokens=1)

    pool = FakePool(flood)
    async with serving(pool) as running:
        reader, writer = await running.open()
        content = json.dumps(chat_body(stream=True)).encode()
        writer.write(JSON_HEAD + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await running.until(lambda: pool.client.running == 1)
        await running.until(lambda: pool.client.running == 0)
        writer.transport.abort()
        del reader
        response = await running.http.get("/health")
        assert response.status_code == 200


async def test_two_hundred_open_streams_leave_the_server_responsive() -> None:
    async with serving(pausing(0, 0.05, 8)) as running:
        limits = httpx.Limits(max_connections=None)
        base = f"http://127.0.0.1:{running.port}"
        async with httpx.AsyncClient(base_url=base, limits=limits, timeout=30) as clients:
            streams = [
                asyncio.create_task(clients.post(CHAT, json=chat_body(stream=True)))
                for _ in range(200)
            ]
            await running.until(lambda: running.pool.client.running > 0)
            assert (await running.http.get("/health/live")).status_code == 200
            answers = await asyncio.gather(*streams)
        assert all(events(response.text)[-1] == "[DONE]" for response in answers)
        assert running.pool.client.running == 0


async def test_a_signal_closes_the_pool_and_streams_get_its_last_words() -> None:
    closing = asyncio.Event()

    def until_closed(request: GenerationRequest) -> Iterable[Event | float]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Delta(id=1, index=0, text="x", tokens=1)
        while not closing.is_set():
            yield 0.01
        yield Failed(id=1, error=Overloaded("The server is shutting down.").info)

    class ClosingPool(FakePool):
        async def close(self, drain_seconds: float) -> None:
            await super().close(drain_seconds)
            closing.set()

    pool = ClosingPool(until_closed)
    async with serving(pool, drain_seconds=1) as running:
        streaming = asyncio.create_task(running.http.post(CHAT, json=chat_body(stream=True)))
        await running.until(lambda: pool.client.running == 1)
        running.server.handle_exit(15, None)
        response = await streaming
        assert '"code":"overloaded"' in events(response.text)[-1]
        assert "[DONE]" not in response.text
    assert pool.closed_with[0] == 1


async def test_until_the_last_answer_is_complete_new_requests_are_told_to_come_back() -> None:
    class DrainingPool(FakePool):
        async def close(self, drain_seconds: float) -> None:
            await super().close(drain_seconds)
            while self.client.running:  # noqa: ASYNC110 - it is not ours to signal
                await asyncio.sleep(0.01)

    pool = DrainingPool(pausing(0, 0.05, 20).client.script)
    messages = {"model": "test", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
    async with serving(pool, drain_seconds=600) as running:
        streaming = asyncio.create_task(running.http.post(CHAT, json=chat_body(stream=True)))
        await running.until(lambda: pool.client.running == 1)
        running.server.handle_exit(15, None)
        await running.until(lambda: bool(pool.closed_with))
        base = f"http://127.0.0.1:{running.port}"
        async with httpx.AsyncClient(base_url=base) as others:  # with connections of their own
            refused = await others.post(CHAT, json=chat_body())
            assert_error(refused, 503, type_="server_error", code="overloaded")
            assert int(refused.headers["retry-after"]) in range(1, 601)
            assert refused.headers["connection"] == "close"
            overloaded = await others.post("/v1/messages", json=messages)
            assert overloaded.json()["error"]["type"] == "overloaded_error"
            assert (await others.get("/v1/models")).status_code == 503
            ready = await others.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            assert (await others.get("/health/live")).status_code == 200
            assert (await others.get("/metrics")).status_code == 200
        response = await streaming
        assert events(response.text)[-1] == "[DONE]"
        await running.until(lambda: not running.server.servers[0].is_serving())


async def test_a_second_signal_ends_at_once() -> None:
    pool = pausing(0, 60, 1)
    async with serving(pool, drain_seconds=60) as running:
        streaming = asyncio.create_task(running.http.post(CHAT, json=chat_body(stream=True)))
        await running.until(lambda: pool.client.running == 1)
        running.server.handle_exit(15, None)
        await asyncio.sleep(0.05)
        running.server.handle_exit(15, None)
        await running.until(lambda: len(pool.closed_with) == 2)
        streaming.cancel()


async def test_answers_arrive_piece_by_piece() -> None:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        first, *rest = answer(request, "a", "b")
        yield first
        for event in rest:
            yield event
            yield 0.05

    async with (
        serving(FakePool(script)) as running,
        running.http.stream("POST", CHAT, json=chat_body(stream=True)) as response,
    ):
        clock = asyncio.get_running_loop().time
        times = [clock() async for line in response.aiter_lines() if line]
    assert times[-1] - times[0] > 0.05


@pytest.mark.parametrize(
    "offer",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n",
        b"Upgrade: TLS/1.2\r\nConnection: upgrade\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Connection: HTTP2-Settings\r\nConnection: Upgrade\r\nUpgrade: h2c, foo/2\r\n",
        b"Upgrade: h2c\r\n",
    ],
)
@pytest.mark.parametrize("pieces", [1, 2, 400])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_offer_of_another_protocol_is_ignored_and_the_request_answered(
    offer: bytes, pieces: int, chunked: bool
) -> None:
    body = json.dumps(chat_body()).encode()
    framing = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    sent = JSON_HEAD + offer + framing
    last = JSON_HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with serving() as running:
        reader, writer = await running.open()
        step = -(-len(sent) // pieces)
        for start in range(0, len(sent), step):
            writer.write(sent[start : start + step])
            if pieces > 1:
                await asyncio.sleep(0)
        writer.write(last)
        received = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert len(running.pool.client.requests) == 2
        metrics = (await running.http.get("/metrics")).text
    assert 'method="POST",route="/v1/chat/completions",status="200"} 2.0' in metrics


async def test_an_offer_without_a_body_leaves_the_next_request_intact() -> None:
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with serving() as running:
        reader, writer = await running.open()
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + offer)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    assert received.count(b"HTTP/1.1 200 OK") == 2


async def test_an_offer_counts_against_the_limits_of_a_head() -> None:
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    async with serving(request_timeout=0.2) as running:
        flood = REQUEST_HEAD + offer + b"X-Flood: " + b"a" * 100_000 + b"\r\n\r\n"
        assert (await running.raw(flood))[0] == 431
        assert (await running.raw(REQUEST_HEAD + offer))[0] == 408
        short = JSON_HEAD + offer + b"Content-Length: 500\r\n\r\n{}"
        assert (await running.raw(short))[0] == 408
        await running.canary()


async def test_a_tunnel_is_refused() -> None:
    async with serving() as running:
        status, _ = await running.raw(
            b"CONNECT example.com:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert 400 <= status < 500
        await running.canary()

"""Keys, hosts, origins, request ids, and errors that tell nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable

import httpx
import pytest

from server.app import create_app
from server.core.events import Event
from server.core.request import CacheScope, GenerationRequest
from server.core.settings import Settings
from server.telemetry import configure_logging
from tests.api.fakes import FakePool, answer
from tests.api.wire import CHAT, assert_error, chat, chat_body, events

Connect = Callable[..., httpx.AsyncClient]

KEYS = {"api_keys": ["first", "schlüssel"]}


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {key}".encode()}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer"},
        {"authorization": "Basic first"},
        {"authorization": "first"},
        {"authorization": "Bearer first second"},
        {"authorization": b"Bearer \xff"},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"x-api-key": "Bearer first"},
        {"x-api-key": "wrong", "authorization": "Bearer wrong"},
    ],
)
async def test_without_a_right_key_every_path_is_401(
    connect: Connect, headers: dict[str, str]
) -> None:
    http = connect(**KEYS)
    for response in (
        await http.post(CHAT, json=chat_body(), headers=headers),
        await http.get("/v1/models", headers=headers),
        await http.get("/metrics", headers=headers),
        await http.get("/no/such/path", headers=headers),
    ):
        assert_error(response, 401, code="invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", ["first", "schlüssel"])
async def test_each_of_several_keys_is_right(connect: Connect, key: str) -> None:
    response = await connect(**KEYS).post(CHAT, json=chat_body(), headers=bearer(key))
    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "first"},
        {"x-api-key": "first", "authorization": "Bearer sk-ant-other"},
        {"x-api-key": "sk-ant-other", "authorization": "Bearer first"},
    ],
)
async def test_a_key_may_come_as_anthropic_s_clients_send_it(
    connect: Connect, headers: dict[str, str]
) -> None:
    pool = FakePool()
    http = connect(pool, **KEYS)
    for sent in (headers, bearer("first")):
        assert (await http.post(CHAT, json=chat_body(), headers=sent)).status_code == 200
    anthropic, openai = pool.client.scopes
    assert anthropic == openai


async def test_health_needs_no_key(connect: Connect) -> None:
    http = connect(**KEYS)
    for path in ("/health", "/health/live", "/health/ready"):
        assert (await http.get(path)).status_code == 200


async def test_each_key_has_a_prefix_cache_of_its_own(connect: Connect) -> None:
    pool = FakePool()
    http = connect(pool, **KEYS)
    for key in ("first", "schlüssel", "first"):
        await http.post(CHAT, json=chat_body(), headers=bearer(key))
    first, second, again = pool.client.scopes
    assert first == again != second
    assert "first" not in first.api_key


async def test_without_keys_the_cache_is_one(http: httpx.AsyncClient, pool: FakePool) -> None:
    await chat(http)
    assert pool.client.scopes[0] == CacheScope()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:80", "[::1]:8000", "app.localhost"],
)
async def test_names_of_this_machine_are_answered(http: httpx.AsyncClient, host: str) -> None:
    response = await http.get("/health/live", headers={"host": host})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.1", "[::2]", ""]
)
async def test_a_foreign_host_on_a_loopback_bind_is_403(http: httpx.AsyncClient, host: str) -> None:
    response = await http.get("/health/live", headers={"host": host})
    assert_error(response, 403, code="forbidden")


async def test_beyond_loopback_any_host_is_answered(connect: Connect) -> None:
    http = connect(host="0.0.0.0", allow_unauthenticated=True)
    response = await http.get("/health/live", headers={"host": "box.example"})
    assert response.status_code == 200


async def test_an_unlisted_origin_gets_no_header(connect: Connect) -> None:
    http = connect(cors_origins=["https://app.example"])
    for method in ("GET", "OPTIONS"):
        response = await http.request(
            method,
            "/v1/models",
            headers={"origin": "https://evil.example", "access-control-request-method": "GET"},
        )
        assert not any(name.startswith("access-control") for name in response.headers)


async def test_a_listed_origin_may_call_but_never_with_credentials(connect: Connect) -> None:
    http = connect(cors_origins=["https://app.example"], **KEYS)
    origin = {b"origin": b"https://app.example"}
    preflight = await http.options(
        CHAT,
        headers={
            **origin,
            b"access-control-request-method": b"POST",
            b"access-control-request-headers": b"authorization, content-type",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
    response = await http.post(CHAT, json=chat_body(), headers={**origin, **bearer("first")})
    for answered in (preflight, response):
        assert answered.headers["access-control-allow-origin"] == "https://app.example"
        assert answered.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answered.headers
    assert "x-request-id" in response.headers["access-control-expose-headers"]


async def test_every_answer_has_a_request_id_of_its_own_and_its_time(
    connect: Connect, http: httpx.AsyncClient
) -> None:
    responses = [
        await http.get("/v1/models"),
        await http.post(CHAT, json=chat_body()),
        await http.post(CHAT, json=chat_body(stream=True)),
        await http.post(CHAT, content=b"{"),
        await http.get("/nope"),
        await http.delete("/v1/models"),
        await connect(**KEYS).get("/v1/models"),
        await http.get("/v1/models", headers={"host": "evil.example"}),
    ]
    assert len({response.headers["x-request-id"] for response in responses}) == len(responses)
    assert all(response.headers["openai-processing-ms"].isdecimal() for response in responses)


async def test_streams_are_not_cached_or_buffered(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=chat_body(stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"


async def test_unknown_paths_and_wrong_methods_are_errors_of_ours(
    http: httpx.AsyncClient,
) -> None:
    assert_error(await http.get("/v1/nope"), 404, code="not_found")
    assert_error(await http.get("/v1/models/"), 404, code="model_not_found", param="model")
    response = await http.get(CHAT)
    assert_error(response, 405, code="method_not_allowed")
    assert response.headers["allow"] == "POST"


def broken(_: GenerationRequest) -> Iterable[Event]:
    raise ZeroDivisionError("the secret plan")


async def test_an_unforeseen_error_is_500_with_the_request_id_and_details_in_the_log_only(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    response = await connect(FakePool(broken)).post(CHAT, json=chat_body())
    message = assert_error(response, 500, type_="server_error")
    assert response.headers["x-request-id"] in message
    assert "secret" not in response.text
    assert "the secret plan" in caplog.text


async def test_an_unforeseen_error_in_a_stream_is_an_event(connect: Connect) -> None:
    def late(request: GenerationRequest) -> Iterable[Event]:
        yield from list(answer(request, "a"))[:2]
        broken(request)

    response = await connect(FakePool(late)).post(CHAT, json=chat_body(stream=True))
    last = json.loads(events(response.text)[-1])
    assert last["error"]["type"] == "server_error"
    assert "secret" not in response.text


@pytest.mark.parametrize("asked", [False, True])
async def test_the_log_has_the_request_id_and_contents_only_when_asked(
    connect: Connect, caplog: pytest.LogCaptureFixture, asked: bool
) -> None:
    caplog.set_level(logging.INFO)
    body = chat_body(messages=[{"role": "user", "content": "my diary"}])
    response = await connect(log_contents=asked).post(CHAT, json=body)
    assert response.status_code == 200
    assert f"POST {CHAT} 200" in caplog.text
    assert ("my diary" in caplog.text) == asked
    assert ("'lo'" in caplog.text) == asked


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_log_lines_are_text_or_json(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure_logging(log_format, "info")  # type: ignore[arg-type]
        app = create_app(Settings(), FakePool())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            # A line break in a path must not make a second line.
            response = await http.get("/v1/models/a%0Ab")
    finally:
        root.handlers = handlers
        root.setLevel(level)
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "dragoman.access" in line]
    assert response.headers["x-request-id"] in line
    if log_format == "json":
        record = json.loads(line)
        assert record["logger"] == "dragoman.access"
        assert (record["status"], record["path"]) == (404, "/v1/models/a%0Ab")
        assert record["request_id"] == response.headers["x-request-id"]

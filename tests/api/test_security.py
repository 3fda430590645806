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
from server.telemetry.log import configure_logging
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


async def test_counting_shares_with_requests_of_the_same_key(connect: Connect) -> None:
    pool = FakePool()
    http = connect(pool, **KEYS)
    for path in (CHAT, f"{CHAT}/input_tokens"):
        assert (await http.post(path, json=chat_body(), headers=bearer("first"))).status_code == 200
    answered, counted = pool.client.scopes
    assert answered == counted != CacheScope()


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
    message = assert_error(response, 403, code="forbidden")
    assert "allowed_hosts" in message


async def test_beyond_loopback_any_host_is_answered(connect: Connect) -> None:
    http = connect(host="0.0.0.0", allow_unauthenticated=True)
    response = await http.get("/health/live", headers={"host": "box.example"})
    assert response.status_code == 200


ALLOWED = [
    "host.docker.internal",
    "LLM.example.com.",
    "exact.example:8443",
    "*.below.example",
    "192.0.2.7",
    "2001:DB8:0::1",
    "[2001:db8::2]:8000",
]


@pytest.mark.parametrize(
    "host",
    [
        "host.docker.internal",
        "host.docker.internal:8000",
        "HOST.docker.internal.:80",
        "llm.example.com",
        "exact.example:8443",
        "a.below.example",
        "b.a.below.example:8000",
        "192.0.2.7:8000",
        "[2001:db8::1]",
        "[2001:DB8::0:1]:8000",
        "[2001:db8::2]:8000",
        "localhost:8000",
        "127.0.0.1",
    ],
)
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
async def test_allowed_hosts_are_answered(connect: Connect, host: str, address: str) -> None:
    http = connect(host=address, allow_unauthenticated=True, allowed_hosts=ALLOWED)
    response = await http.get("/v1/models", headers={"host": host})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "docker.internal",
        "evil.host.docker.internal",
        "host.docker.internal.evil.example",
        "host.docker.internal:80:80",
        "host.docker.internal/x",
        "exact.example",
        "exact.example:80",
        "below.example",
        "evilbelow.example",
        "192.0.2.8",
        "[2001:db8::3]",
        "[2001:db8::2]:80",
        "2001:db8::1",
        "*",
        "*.below.example.evil",
        "",
    ],
)
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
async def test_other_hosts_are_403_where_some_are_allowed(
    connect: Connect, host: str, address: str
) -> None:
    http = connect(host=address, allow_unauthenticated=True, allowed_hosts=ALLOWED)
    message = assert_error(
        await http.get("/v1/models", headers={"host": host}), 403, code="forbidden"
    )
    assert repr(host) in message


async def test_all_hosts_may_be_allowed(connect: Connect) -> None:
    http = connect(allowed_hosts=["*"])
    for host in ("evil.example", "", "[::2]:1"):
        assert (await http.get("/v1/models", headers={"host": host})).status_code == 200


async def test_a_listed_origin_may_reach_a_private_network_when_it_asks(connect: Connect) -> None:
    http = connect(cors_origins=["https://app.example"])
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-private-network": "true",
    }
    name = "access-control-allow-private-network"
    assert (await http.options(CHAT, headers=asked)).headers[name] == "true"
    without = {**asked, "access-control-request-private-network": "false"}
    assert name not in (await http.options(CHAT, headers=without)).headers
    foreign = {**asked, "origin": "https://evil.example"}
    assert name not in (await http.options(CHAT, headers=foreign)).headers
    anyone = connect(cors_origins=["*"])
    assert (await anyone.options(CHAT, headers=foreign)).headers[name] == "true"


async def test_an_unlisted_origin_gets_no_header(connect: Connect) -> None:
    http = connect(cors_origins=["https://app.example"])
    for method in ("GET", "OPTIONS"):
        response = await http.request(
            method,
            "/v1/models",
            headers={"origin": "https://evil.example", "access-control-request-method": "GET"},
        )
        assert not any(name.startswith("access-control") for name in response.headers)


@pytest.mark.parametrize("path", ["/v1/pulls", "/v1/models/unload", "/v1/files", CHAT])
@pytest.mark.parametrize(
    "kind",
    [{}, {"content-type": "text/plain"}, {"content-type": "multipart/form-data; boundary=x"}],
)
@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1", "null"])
async def test_what_a_foreign_page_sends_unasked_is_403(
    http: httpx.AsyncClient, path: str, kind: dict[str, str], origin: str
) -> None:
    body = json.dumps(chat_body()).encode()
    response = await http.post(path, content=body, headers={"origin": origin, **kind})
    assert response.status_code == 403
    assert "cors_origins" in response.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:8000", "host": "localhost:8000"},
        {"origin": "http://localhost:5173", "sec-fetch-site": "same-origin"},
        {"origin": "https://app.example"},
        # No page can send this type unasked: the sender is an application.
        {"origin": "null", "content-type": "application/json"},
        {"origin": "https://evil.example", "content-type": "Application/JSON; charset=utf-8"},
    ],
)
async def test_its_own_page_listed_origins_and_applications_are_served(
    connect: Connect, headers: dict[str, str]
) -> None:
    http = connect(cors_origins=["https://app.example"])
    response = await http.post(CHAT, content=json.dumps(chat_body()).encode(), headers=headers)
    assert response.status_code == 200


async def test_its_own_page_behind_a_proxy_is_served(connect: Connect) -> None:
    body = json.dumps(chat_body()).encode()
    headers = {"origin": "https://llm.example", "x-forwarded-host": "llm.example"}
    http = connect(trusted_proxies=["*"])
    assert (await http.post(CHAT, content=body, headers=headers)).status_code == 200


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
    assert_error(await http.get("/v1/v1/models"), 404, code="not_found")
    response = await http.get(CHAT)
    assert_error(response, 405, code="method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/models", "/v1/models"),
        ("/v1/v1/models", "/v1/models"),
        ("/completions", "/v1/completions"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
    ],
)
async def test_a_path_of_a_wrong_base_url_is_told_from_what_is_meant(
    http: httpx.AsyncClient, path: str, meant: str
) -> None:
    error = (await http.post(path, json={})).json()["error"]
    hint = f"If {meant} is meant, correct the client's base URL."
    assert error["message"] == f"There is no {path} here. {hint}"


@pytest.mark.parametrize("path", ["/v1", "/api/chat", "/v1/audio/speech", "/nope"])
async def test_a_path_that_is_like_none_gets_no_advice(http: httpx.AsyncClient, path: str) -> None:
    error = (await http.post(path, json={})).json()["error"]
    assert error["message"] == f"There is no {path} here."


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

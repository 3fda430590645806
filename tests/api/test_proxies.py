"""Behind reverse proxies: addresses, paths and ids of requests, with nginx itself where it is."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from server.app import create_app
from server.core.settings import Settings
from tests.api.fakes import FakePool
from tests.api.serving import Running, serving
from tests.api.wire import CHAT, assert_error, chat_body, events

Connect = Callable[..., httpx.AsyncClient]

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def behind(*peer: str, **settings: object) -> httpx.AsyncClient:
    """A client whose requests come from ``peer``."""
    app = create_app(Settings.model_validate(settings), FakePool())
    (address,) = peer
    transport = httpx.ASGITransport(app, client=(address, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """The client's address in the last line of the access log."""
    lines = [record for record in caplog.records if record.name == "dragoman.access"]
    return lines[-1].getMessage().split()[0]


async def base(http: httpx.AsyncClient, **headers: str) -> str:
    """The address under which the client knows the server."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    description = (await http.get("/openapi.json", headers=sent)).json()
    return str(description["servers"][0]["url"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1", "203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["203.0.113.9:5555"], "203.0.113.9"),
        ("10.0.0.1", ["2001:db8::9"], "2001:db8::9"),
        ("10.0.0.1", ["[2001:db8::9]:5555"], "2001:db8::9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, <script>"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("unix", ["203.0.113.9"], "unix"),
    ],
)
async def test_the_log_has_the_address_that_asked_the_first_trusted_proxy(
    caplog: pytest.LogCaptureFixture, peer: str, forwarded: list[str], client: str
) -> None:
    caplog.set_level(logging.INFO)
    http = behind(peer, trusted_proxies=["10.0.0.0/8", "fd00::1"])
    headers = [("x-forwarded-for", value) for value in forwarded]
    assert (await http.get("/health", headers=headers)).status_code == 200
    assert logged(caplog) == client


async def test_any_proxy_may_be_trusted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    http = behind("192.0.2.1", trusted_proxies=["*"])
    await http.get("/health", headers={"x-forwarded-for": "203.0.113.9, 10.0.0.1"})
    assert logged(caplog) == "203.0.113.9"


FORWARDED = {
    "x_forwarded_proto": "https",
    "x_forwarded_host": "llm.example.com",
    "x_forwarded_prefix": "/llm/",
}


@pytest.mark.parametrize(
    ("settings", "headers", "known"),
    [
        ({}, {}, "http://127.0.0.1:8000"),
        ({}, FORWARDED, "http://127.0.0.1:8000"),
        ({"trusted_proxies": ["10.0.0.1"]}, FORWARDED, "https://llm.example.com/llm"),
        (
            {"trusted_proxies": ["10.0.0.1"], "root_path": "/other"},
            FORWARDED,
            "https://llm.example.com/llm",
        ),
        ({"root_path": "/llm/"}, {}, "http://127.0.0.1:8000/llm"),
        (
            {"trusted_proxies": ["10.0.0.1"]},
            {"x_forwarded_host": "evil.example, llm.example.com:8443"},
            "http://llm.example.com:8443",
        ),
        (
            {"trusted_proxies": ["10.0.0.1"]},
            {
                "x_forwarded_proto": "javascript",
                "x_forwarded_host": "a b",
                "x_forwarded_prefix": "//evil.example",
            },
            "http://127.0.0.1:8000",
        ),
    ],
)
async def test_the_description_has_the_address_that_clients_know(
    settings: dict[str, object], headers: dict[str, str], known: str
) -> None:
    assert await base(behind("10.0.0.1", **settings), **headers) == known


async def test_a_forwarded_host_opens_nothing() -> None:
    http = behind("10.0.0.1", trusted_proxies=["*"])
    headers = {"host": "evil.example", "x-forwarded-host": "127.0.0.1"}
    assert_error(await http.get("/health", headers=headers), 403, code="forbidden")


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/test", "/openapi.json", "/"])
async def test_under_a_root_path_requests_come_with_it_or_without(
    connect: Connect, path: str
) -> None:
    http = connect(root_path="/llm")
    for prefix in ("/llm", ""):
        response = await http.get(prefix + path)
        assert response.status_code == 200
    assert (await http.get("/llmx/health")).status_code == 404
    assert (await http.get("/llm/llm/health")).status_code == 404


@pytest.mark.parametrize("path", ["//v1/models", "/v1/models/", "/llm//v1//models//"])
async def test_spare_slashes_of_a_path_do_not_count(connect: Connect, path: str) -> None:
    http = connect(root_path="/llm")
    response = await http.get(f"http://127.0.0.1:8000{path}")
    assert response.status_code == 200, response.text
    assert response.json()["object"] == "list"


async def test_errors_and_keys_under_a_root_path_are_those_of_the_path_below(
    connect: Connect,
) -> None:
    http = connect(root_path="/a/b", api_keys=["secret"])
    assert (await http.get("/a/b/health")).status_code == 200
    assert (await http.get("/a/b/playground/app.js")).status_code == 200
    assert_error(await http.get("/a/b/v1/models"), 401, code="invalid_api_key")
    refused = await http.post("/a/b/v1/messages", json={})
    assert refused.status_code == 401
    assert refused.json()["type"] == "error"


async def test_without_its_slash_a_root_path_leads_to_the_page(connect: Connect) -> None:
    http = connect(root_path="/llm")
    moved = await http.get("/llm")
    assert (moved.status_code, moved.headers["location"]) == (307, "/llm/")


@pytest.mark.parametrize(
    "sent", ["a", "0198f3a1-7c5e-7b7e-9d0b-2f6c1f1f9d53", "Root=1-67891233-abc", "x" * 128]
)
async def test_the_request_id_of_a_client_is_kept(connect: Connect, sent: str) -> None:
    http = connect()
    for path in ("/health", "/none"):
        response = await http.get(path, headers={"x-request-id": sent})
        assert response.headers["x-request-id"] == response.headers["request-id"] == sent
    stream = await http.post(CHAT, json=chat_body(stream=True), headers={"x-request-id": sent})
    assert stream.headers["x-request-id"] == sent


@pytest.mark.parametrize(
    "sent", [b"", b"x" * 129, b"two words", b"a,b", b'"quoted"', b"\xff", b"a\tb", b"<b>"]
)
async def test_a_request_id_that_is_none_is_replaced(connect: Connect, sent: bytes) -> None:
    response = await connect().get("/health", headers={b"x-request-id": sent})
    assert response.headers["x-request-id"].startswith("req_")


async def test_of_two_request_ids_neither_is_kept(connect: Connect) -> None:
    headers = [("x-request-id", "a"), ("x-request-id", "b")]
    response = await connect().get("/health", headers=headers)
    assert response.headers["x-request-id"].startswith("req_")


# What the README has for nginx, and the same with the path cut off.
_README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
(KEPT,) = re.findall(r"^```nginx\n(.*?)^```", _README, flags=re.DOTALL | re.MULTILINE)
CUT = KEPT.replace("{", "{ proxy_set_header X-Forwarded-Prefix /llm;").replace(":8000", ":8000/")


@asynccontextmanager
async def nginx(folder: Path, location: str) -> AsyncIterator[str]:
    """The address of an nginx with this ``location``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    (folder / "nginx.conf").write_text(f"""
        daemon off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            server {{
                listen 127.0.0.1:{own};
                {location}
            }}
        }}
    """)
    assert NGINX is not None
    process = await asyncio.create_subprocess_exec(
        NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")
    )
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", own)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{own}"
    finally:
        process.terminate()
        await process.wait()


async def check_behind_proxy(running: Running, address: str) -> None:
    """Page, description, streams and errors, as a browser and the SDKs find them."""
    async with httpx.AsyncClient(timeout=10, headers={"host": "llm.example.com"}) as http:
        root = f"{address}/llm/"
        page = await http.get(root)
        assert page.status_code == 200
        for link in ("playground/app.js", "playground/base.css", "openapi.json", "v1/models"):
            assert (await http.get(urljoin(root, link))).status_code == 200
        described = (await http.get(urljoin(root, "openapi.json"))).json()
        assert described["servers"] == [{"url": "http://llm.example.com/llm"}]
        stream = await http.post(f"{root}v1/chat/completions", json=chat_body(stream=True))
        assert events(stream.text)[-1] == "[DONE]"
        assert len(stream.headers["x-request-id"]) == 32
        assert_error(await http.post(f"{root}v1/chat/completions", json={}), 400, param="messages")
    await running.canary()


@pytest.mark.process
@pytest.mark.skipif(NGINX is None, reason="needs nginx (Debian: apt install nginx-light)")
@pytest.mark.parametrize(("location", "root_path"), [(KEPT, "/llm"), (CUT, "")])
async def test_the_server_works_behind_nginx_under_a_path(
    tmp_path: Path, location: str, root_path: str
) -> None:
    async with (
        serving(
            allowed_hosts=["llm.example.com"], trusted_proxies=["127.0.0.1"], root_path=root_path
        ) as running,
        nginx(tmp_path, location.replace(":8000", f":{running.port}")) as address,
    ):
        await check_behind_proxy(running, address)


async def test_a_proxy_at_a_unix_socket_is_this_machine(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for trusted, client in ((["127.0.0.1"], "203.0.113.9"), ([], "-")):
        app = create_app(Settings.model_validate({"trusted_proxies": trusted}), FakePool())
        transport = httpx.ASGITransport(app, client=None)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            response = await http.get("/v1/models", headers={"x-forwarded-for": "203.0.113.9"})
        assert response.status_code == 200
        assert logged(caplog) == client

"""Images with URLs are fetched from allowed hosts alone, and never from inner networks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from server.api import remote_contents
from server.core.request import ChatPrompt, ImagePart, images_of
from server.http.fetcher import Fetcher, FetchError, Streams, Target
from tests.api.fakes import FakePool

PNG = b"\x89PNG\r\n\x1a\n of a cat"
ADDRESSES = {
    "pictures.example": ["93.184.215.14"],
    "other.example": ["93.184.215.15", "2606:2800:21f:cb07::1"],
    "inner.example": ["10.0.0.7"],
    "mixed.example": ["93.184.215.14", "127.0.0.1"],
    "nowhere.example": [],
}

Site = dict[str, bytes]
"""Answers by ``host:port/path``; one that begins with `ENDLESS` stays open."""

ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


def any_room(size: int) -> None:
    """There is room for everything."""


def ok(body: bytes, *headers: str) -> bytes:
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def moved(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


class Writer:
    """The end of a connection that answers once it was asked."""

    def __init__(self, reader: asyncio.StreamReader, target: Target, site: Site) -> None:
        self._reader = reader
        self._target = target
        self._site = site
        self.asked = b""

    def write(self, data: bytes) -> None:
        self.asked += data
        path = self._target.path
        answer = self._site[f"{self._target.host}:{self._target.port}{path}"]
        self._reader.feed_data(answer)
        if not answer.startswith(ENDLESS):
            self._reader.feed_eof()

    async def drain(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""


class Web:
    """Hosts with addresses that answer what ``site`` says."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.connected: list[tuple[str, int]] = []
        self.resolved: list[str] = []
        self.writers: list[Writer] = []

    def fetcher(self, *hosts: str) -> Fetcher:
        return Fetcher(hosts=hosts, resolve=self.resolve, connect=self.connect)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.resolved.append(host)
        return ADDRESSES.get(host, [host])

    async def connect(self, target: Target, address: str) -> Streams:
        self.connected.append((address, target.port))
        reader = asyncio.StreamReader()
        writer = Writer(reader, target, self.site)
        self.writers.append(writer)
        return reader, writer  # type: ignore[return-value]


def web(url: str = "pictures.example:80/cat.png", answer: bytes = ok(PNG)) -> Web:
    return Web({url: answer})


async def test_an_image_of_an_allowed_host_is_fetched() -> None:
    there = web("pictures.example:443/a%20cat.png?size=2")
    found = await there.fetcher("pictures.example").fetch(
        "https://Pictures.Example./a cat.png?size=2#top", take_room=any_room
    )
    assert found == PNG
    assert there.connected == [("93.184.215.14", 443)]
    assert there.writers[0].asked.startswith(b"GET /a%20cat.png?size=2 HTTP/1.1\r\n")
    assert b"Host: pictures.example\r\n" in there.writers[0].asked


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(b"abc"), b"abc"),
    ],
)
async def test_answers_are_read_however_they_end(answer: bytes, found: bytes) -> None:
    there = web(answer=answer)
    fetcher = there.fetcher("pictures.example")
    assert await fetcher.fetch("http://pictures.example/cat.png", take_room=any_room) == found


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        ([], "http://pictures.example/cat.png"),
        (["other.example"], "http://pictures.example/cat.png"),
        (["example"], "http://pictures.example/cat.png"),
        (["*.pictures.example"], "http://pictures.example/cat.png"),
        (["pictures.example"], "http://pictures.example:8080/cat.png"),
        (["pictures.example:8080"], "http://pictures.example/cat.png"),
        (["pictures.example"], "http://pictures.example.other.example/cat.png"),
        (["pictures.example"], "http://pictures.example@other.example/cat.png"),
        (["pictures.example"], "http://me:secret@pictures.example/cat.png"),
        (["pictures.example"], "ftp://pictures.example/cat.png"),
        (["*"], "http:///cat.png"),
        (["*"], "http://pictures.example:99999/cat.png"),
        (["*"], "http://[::1/cat.png"),
    ],
)
async def test_nothing_is_asked_of_other_hosts(hosts: list[str], url: str) -> None:
    there = web()
    with pytest.raises(FetchError):
        await there.fetcher(*hosts).fetch(url, take_room=any_room)
    assert not there.resolved


@pytest.mark.parametrize(
    "hosts",
    [["pictures.example"], ["*.example"], ["*"], ["PICTURES.example:80"], ["*.example:80"]],
)
async def test_hosts_are_allowed_by_name_and_pattern(hosts: list[str]) -> None:
    found = await web().fetcher(*hosts).fetch("http://pictures.example/cat.png", take_room=any_room)
    assert found == PNG


@pytest.mark.parametrize(
    "host",
    [
        *("inner.example", "mixed.example", "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1"),
        *("169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
        *("[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[ff02::1]", "[::ffff:127.0.0.1]"),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]"),
    ],
)
async def test_addresses_that_are_not_public_are_not_connected_to(host: str) -> None:
    there = web()
    with pytest.raises(FetchError, match="not public"):
        await there.fetcher("*").fetch(f"http://{host}/cat.png", take_room=any_room)
    assert not there.connected


@pytest.mark.parametrize(
    ("hosts", "url", "address"),
    [
        (["inner.example", "10.0.0.7"], "http://inner.example/a", ("10.0.0.7", 80)),
        (["127.0.0.1:9000"], "http://127.0.0.1:9000/a", ("127.0.0.1", 9000)),
        (["[::1]:9000"], "http://[::1]:9000/a", ("::1", 9000)),
        (["::1"], "http://[::1]/a", ("::1", 80)),
    ],
)
async def test_a_listed_address_need_not_be_public(
    hosts: list[str], url: str, address: tuple[str, int]
) -> None:
    there = Web(
        {
            f"{host}:{port}/a": ok(PNG)
            for host in ("inner.example", "127.0.0.1", "::1")
            for port in (80, 9000)
        }
    )
    assert await there.fetcher(*hosts).fetch(url, take_room=any_room) == PNG
    assert there.connected == [address]


async def test_the_next_address_is_tried_where_one_takes_no_connection() -> None:
    there = Web({"other.example:80/a": ok(PNG)})

    async def connect(target: Target, address: str) -> Streams:
        if address == "93.184.215.15":
            raise ConnectionRefusedError
        return await there.connect(target, address)

    fetcher = Fetcher(hosts=["*"], resolve=there.resolve, connect=connect)
    assert await fetcher.fetch("http://other.example/a", take_room=any_room) == PNG
    assert there.connected == [("2606:2800:21f:cb07::1", 80)]
    assert there.resolved == ["other.example"]


async def test_redirects_are_followed_to_allowed_hosts() -> None:
    site = {
        "pictures.example:80/1": moved("/2", 301),
        "pictures.example:80/2": moved("https://other.example/3", 307),
        "other.example:443/3": ok(PNG),
    }
    there = Web(site)
    fetcher = there.fetcher("pictures.example", "other.example")
    assert await fetcher.fetch("http://pictures.example/1", take_room=any_room) == PNG
    assert there.resolved == ["pictures.example", "pictures.example", "other.example"]


@pytest.mark.parametrize(
    ("to", "hosts"),
    [
        ("http://other.example/", ["pictures.example"]),
        ("http://127.0.0.1/", ["*"]),
        ("http://inner.example/", ["*"]),
        ("http://pictures.example:6379/", ["*"]),
        ("file:///etc/hostname", ["*"]),
        ("gopher://pictures.example/", ["*"]),
        ("http://pictures.example/cat.png", ["*"]),  # in a circle
    ],
)
async def test_redirects_lead_nowhere_else(to: str, hosts: list[str]) -> None:
    there = web(answer=moved(to))
    with pytest.raises(FetchError):
        await there.fetcher(*hosts).fetch("http://pictures.example/cat.png", take_room=any_room)
    assert {*there.connected} == {("93.184.215.14", 80)}
    assert len(there.connected) <= 4


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answers 404"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "answers 204"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "cannot be fetched"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "cannot be fetched"),
        (b"SSH-2.0-OpenSSH_9\r\n", "cannot be fetched"),
        (b"", "cannot be fetched"),
    ],
)
async def test_answers_that_hold_no_file_are_said(answer: bytes, problem: str) -> None:
    fetcher = web(answer=answer).fetcher("*")
    with pytest.raises(FetchError, match=problem):
        await fetcher.fetch("http://pictures.example/cat.png", take_room=any_room)


async def test_what_there_is_no_room_for_is_not_read_to_its_end() -> None:
    taken: list[int] = []

    def take_room(size: int) -> None:
        taken.append(size)
        raise MemoryError

    with pytest.raises(MemoryError):
        await (
            web(answer=ENDLESS + bytes(300))
            .fetcher("*")
            .fetch("http://pictures.example/cat.png", take_room=take_room)
        )
    assert taken == [300]


async def test_a_host_without_an_address_is_said() -> None:
    with pytest.raises(FetchError, match="cannot be fetched"):
        await web().fetcher("*").fetch("http://nowhere.example/", take_room=any_room)


async def test_a_fetch_ends_in_time() -> None:
    async def connect(_: Target, __: str) -> Streams:
        await asyncio.sleep(60)
        raise AssertionError

    fetcher = Fetcher(hosts=["*"], seconds=0.01, resolve=web().resolve, connect=connect)
    with pytest.raises(FetchError, match=r"within 0.01 s"):
        await fetcher.fetch("http://pictures.example/", take_room=any_room)


# --- in requests ---

URL = "http://pictures.example/cat.png"
LARGE = "http://pictures.example/large.png"
Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Web:
    """A web that requests are served from."""
    found = web()
    found.site["pictures.example:80/gone.png"] = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    for path in ("large.png", "large.png?2"):
        found.site[f"pictures.example:80/{path}"] = ok(bytes(300))
    for path in ("large.png?3", "large.png?4"):
        found.site[f"pictures.example:80/{path}"] = ENDLESS + bytes(300)
    monkeypatch.setattr(
        remote_contents, "fetcher", lambda settings: found.fetcher(*settings.image_hosts)
    )
    return found


def chat(*parts: Any) -> dict[str, Any]:
    return {"model": "test", "messages": [{"role": "user", "content": list(parts)}]}


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def images(pool: FakePool) -> list[ImagePart]:
    last = pool.client.requests[-1].prompt
    assert isinstance(last, ChatPrompt)
    return [image for _, image in images_of(last.messages)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat(part(URL))),
        ("/v1/chat/completions", chat({"type": "image_url", "image_url": URL})),
        (
            "/v1/responses",
            {
                "model": "test",
                "input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}],
            },
        ),
        (
            "/v1/messages",
            chat({"type": "image", "source": {"type": "url", "url": URL}}) | {"max_tokens": 9},
        ),
        (
            "/v1/messages",
            chat("hi") | {"max_tokens": 9, "system": [{"type": "image", "url": URL}]},
        ),
        (
            "/v1/messages",
            chat({"type": "document", "source": {"type": "content", "content": [part(URL)]}})
            | {"max_tokens": 9},
        ),
        ("/v1/chat/completions", chat({"image_url": URL})),
        (
            "/v1/chat/completions",
            {"model": "test", "messages": [{"role": "user", "content": "hi", "images": [URL]}]},
        ),
    ],
)
async def test_every_family_fetches_images(
    connect: Connect, there: Web, path: str, body: dict[str, Any]
) -> None:
    pool = FakePool()
    pool.see()
    http = connect(pool, image_hosts=["pictures.example"])
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    assert images(pool) == [ImagePart(PNG)]
    assert "x-dragoman-ignored" not in response.headers


async def test_results_of_tools_fetch_images(connect: Connect, there: Web) -> None:
    pool = FakePool()
    pool.see()
    source = {"type": "image", "source": {"type": "url", "url": URL}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [source]}
    use = {"type": "tool_use", "id": "c", "name": "look", "input": source}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    http = connect(pool, image_hosts=["pictures.example"])
    body = {"model": "test", "max_tokens": 9, "messages": messages}
    assert (await http.post("/v1/messages", json=body)).status_code == 200
    assert images(pool) == [ImagePart(PNG)]
    assert len(there.connected) == 1


async def test_an_image_that_is_asked_for_twice_is_fetched_once(
    connect: Connect, there: Web
) -> None:
    pool = FakePool()
    pool.see()
    http = connect(pool, image_hosts=["pictures.example"])
    response = await http.post("/v1/chat/completions", json=chat(part(URL), part(URL)))
    assert response.status_code == 200
    assert images(pool) == [ImagePart(PNG)] * 2
    assert len(there.connected) == 1


@pytest.mark.parametrize(
    ("parts", "settings", "problem"),
    [
        ([part("http://pictures.example/gone.png")], {}, "answers 404"),
        ([part("http://other.example/a.png")], {}, "not fetched from 'other.example'"),
        ([part(LARGE), part(f"{LARGE}?2")], {"max_body_bytes": 400}, "more than 400 bytes"),
        ([part(f"{LARGE}?{n}") for n in (3, 4)], {"max_body_bytes": 400}, "more than 400 bytes"),
        ([part(f"{URL}?{n}") for n in range(21)], {}, "at most 20 images"),
    ],
)
async def test_what_is_not_fetched_is_named_with_its_place(
    connect: Connect, there: Web, parts: list[Any], settings: dict[str, Any], problem: str
) -> None:
    pool = FakePool()
    pool.see()
    http = connect(pool, image_hosts=["pictures.example"], **settings)
    response = await http.post(
        "/v1/chat/completions", json=chat({"type": "text", "text": "a"}, *parts)
    )
    assert response.status_code == 400
    error = response.json()["error"]
    assert problem in error["message"]
    assert error["param"].startswith("messages[0].content[")
    assert error["param"].endswith("].image_url.url")
    assert not pool.client.requests


async def test_no_host_is_allowed_by_default(http: httpx.AsyncClient, pool: FakePool) -> None:
    response = await http.post("/v1/chat/completions", json=chat(part(URL)))
    assert response.status_code == 400
    assert "image_hosts" in response.json()["error"]["message"]
    assert not pool.client.requests

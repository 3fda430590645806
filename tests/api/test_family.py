"""A family of under 60 lines gets all the rest: streams, errors, disconnects, keys, metrics."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter

from server.api.family import Family, Frame, ParsedRequest
from server.app import FAMILIES, create_app
from server.core.errors import ConversationError, ModelUnavailable, NotFound
from server.core.events import Accepted, Event, Failed
from server.core.request import GenerationRequest
from server.core.settings import Settings
from tests.api import toy_family
from tests.api.fakes import FakePool
from tests.api.serving import pausing, serving
from tests.api.wire import CHAT, assert_error, chat_body

ASK = {"model": "test", "say": "hi"}
WITH_TOY = (*FAMILIES, toy_family.FAMILY)


def connect(
    pool: FakePool | None = None, families: Sequence[Family] = WITH_TOY, **settings: object
) -> httpx.AsyncClient:
    app = create_app(Settings.model_validate(settings), pool or FakePool(), families)
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


def refusing(request: GenerationRequest) -> Iterable[Event]:
    error = ConversationError("{place} cannot be said.", at=("messages", 0))
    return [Failed(id=1, error=error.info)]


def breaking(request: GenerationRequest) -> Iterable[Event]:
    yield Accepted(id=1, prompt_tokens=5)
    yield Failed(id=1, error=ConversationError("{place} broke.", at=("messages", 0)).info)


def test_it_takes_fewer_than_sixty_lines() -> None:
    text = Path(toy_family.__file__).read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) < 60


async def test_its_whole_answer_is_the_fold_of_the_events() -> None:
    response = await connect().post("/toy", json=ASK)
    assert (response.status_code, response.json()) == (200, {"said": "Hello!"})
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["request-id"] == response.headers["x-request-id"]


async def test_it_streams_frames_of_its_own() -> None:
    response = await connect().post("/toy", json={**ASK, "live": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.split("\n\n") == [
        'event: said\ndata: {"said":"Hel"}',
        'event: said\ndata: {"said":"lo"}',
        'event: said\ndata: {"said":"!"}',
        "event: end\ndata: stop",
        "event: by\ndata: test",
        "",
    ]


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        ({**ASK, "say": ""}, 400, "say"),
        ({"model": "test"}, 400, "say"),
        ({**ASK, "model": "none"}, 404, "model"),
        ({**ASK, "model": "org/broken"}, 503, ""),
    ],
)
async def test_every_error_has_its_shape(body: dict[str, str], status: int, where: str) -> None:
    response = await connect().post("/toy", json=body)
    assert response.status_code == status
    assert response.json().keys() == {"oops", "where"}
    assert response.json()["where"] == where


async def test_broken_json_a_wrong_method_and_no_key_have_its_shape_too() -> None:
    http = connect(api_keys=["secret"])
    key = {"authorization": "Bearer secret"}
    for response, status in (
        (await http.post("/toy", json=ASK), 401),
        (await http.post("/toy", content="{", headers=key), 400),
        (await http.get("/toy", headers=key), 405),
        (await http.post("/toy", content="x" * 9, headers={**key, "content-type": "a/b"}), 415),
    ):
        assert response.status_code == status
        assert response.json().keys() == {"oops", "where"}
    assert (await http.post("/toy", json=ASK, headers=key)).status_code == 200


async def test_errors_at_a_path_with_a_parameter_have_its_shape_too() -> None:
    router = APIRouter()

    @router.get("/toy/{name}")
    async def find(name: str) -> None:
        raise NotFound(f"There is no toy {name}.")

    family = dataclasses.replace(toy_family.FAMILY, routers=[router])
    http = connect(families=(*FAMILIES, family))
    response = await http.get("/toy/ball")
    assert response.status_code == 404
    assert response.json() == {"oops": "There is no toy ball.", "where": ""}
    assert (await http.delete("/toy/ball")).json().keys() == {"oops", "where"}
    below = await http.get("/toy/ball/red")  # what its clients may ask for, and it does not have
    assert below.status_code == 404
    assert below.json().keys() == {"oops", "where"}
    assert_error(await http.get("/toys/ball"), 404, code="not_found")


async def test_other_families_keep_theirs() -> None:
    assert_error(await connect().post(CHAT, json={"model": "test"}), 400, param="messages")
    assert_error(await connect().get("/toys"), 404, code="not_found")


async def test_the_worker_s_errors_name_its_own_field() -> None:
    for live in (False, True):
        response = await connect(FakePool(refusing)).post("/toy", json={**ASK, "live": live})
        assert response.status_code == 400
        assert response.json() == {"oops": "say cannot be said.", "where": "say"}


async def test_an_error_ends_a_begun_stream_in_its_shape() -> None:
    response = await connect(FakePool(breaking)).post("/toy", json={**ASK, "live": True})
    assert response.status_code == 200
    assert response.text == 'event: oops\ndata: {"oops":"say broke.","where":"say"}\n\n'


async def test_each_key_has_a_cache_of_its_own() -> None:
    pool = FakePool()
    http = connect(pool, api_keys=["one", "two"])
    for key in ("one", "two"):
        await http.post("/toy", json=ASK, headers={"authorization": f"Bearer {key}"})
    first, second = pool.client.scopes
    assert first.api_key
    assert first != second


async def test_it_is_measured_and_described() -> None:
    http = connect()
    await http.post("/toy", json=ASK)
    metrics = (await http.get("/metrics")).text
    assert 'dragoman_requests_total{method="POST",route="/toy",status="200"} 1.0' in metrics
    assert 'dragoman_completion_tokens_total{model="test"} 3.0' in metrics
    described = (await http.get("/openapi.json")).json()
    body = described["paths"]["/toy"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/Ask"}
    assert described["paths"]["/toy"]["post"]["operationId"] == "create_toy_post"
    assert described["components"]["schemas"]["Ask"]["properties"].keys() == {
        "model",
        "say",
        "live",
    }


@pytest.mark.process
@pytest.mark.parametrize("live", [False, True])
async def test_a_client_that_leaves_cancels_its_request(live: bool) -> None:
    pool = pausing(0, 0.01, 10**6)
    async with serving(pool, WITH_TOY) as running:
        content = json.dumps({**ASK, "live": live}).encode()
        head = b"POST /toy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        _, writer = await running.open()
        writer.write(head + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await running.until(lambda: pool.client.running == 1)
        writer.transport.abort()
        await running.until(lambda: pool.client.running == 0)
        assert pool.client.cancelled == 1


@pytest.mark.process
async def test_comments_keep_its_stream_alive_while_a_model_loads_and_fails() -> None:
    pool = FakePool()
    pool.opening_error = ModelUnavailable("It does not fit.")
    async with serving(pool, WITH_TOY, ping_seconds=0.05) as running:
        told = await running.told_while_opening("/toy", {**ASK, "live": True})
        assert told.count(": ping\n\n") >= 2
        assert told.endswith('event: oops\ndata: {"oops":"It does not fit.","where":""}\n\n')


@pytest.mark.process
async def test_its_own_event_keeps_its_stream_alive_before_and_after_the_model_is_loaded() -> None:
    def parse(body: toy_family.Ask) -> ParsedRequest:
        numbers = itertools.count()

        def keep_alive() -> list[Frame]:
            return [Frame(b"%d" % next(numbers), event="still")]

        return dataclasses.replace(toy_family.parse(body), keep_alive=keep_alive)

    (operation,) = toy_family.FAMILY.operations
    family = dataclasses.replace(
        toy_family.FAMILY, operations=[dataclasses.replace(operation, parse=parse)]
    )
    pool = pausing(0, 0.2, 1)
    pool.opening_seconds = 0.2
    async with serving(pool, (*FAMILIES, family), ping_seconds=0.05) as running:
        response = await running.http.post("/toy", json={**ASK, "live": True})
    *silence, said, end, by, nothing = response.text.split("\n\n")
    assert len(silence) >= 4
    assert silence == [f"event: still\ndata: {number}" for number in range(len(silence))]
    assert (said, end, by) == (
        'event: said\ndata: {"said":"x"}',
        "event: end\ndata: stop",
        "event: by\ndata: test",
    )
    assert nothing == ""


async def test_chat_is_answered_beside_it() -> None:
    response = await connect().post(CHAT, json=chat_body())
    assert response.json()["choices"][0]["message"]["content"] == "Hello!"

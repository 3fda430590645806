"""Responses that are made without their client: polled, followed, cancelled, and interrupted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from sqlalchemy import update

from server.app import create_app
from server.core.errors import QueueFull, WorkerDied
from server.core.event_stream import EventStreamParser
from server.core.events import Accepted, Delta, Event, Finished
from server.core.process_name import process_name
from server.core.request import GenerationRequest
from server.core.settings import Settings
from server.store.schema import runners
from tests.api.fakes import FakePool, usage
from tests.api.responses.wire import checked, respond, response_body, types
from tests.api.serving import serving
from tests.api.wire import assert_error

Connect = Callable[..., httpx.AsyncClient]
_event: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def slowly(pieces: int = 5, between: float = 0.02) -> FakePool:
    def script(request: GenerationRequest) -> Iterable[Event | float]:
        yield between
        yield Accepted(id=1, prompt_tokens=5)
        for number in range(pieces):
            yield between
            yield Delta(id=1, index=0, text=f"{number} ", tokens=1)
        yield Finished(id=1, index=0, reason="stop", usage=usage(pieces))

    return FakePool(script)


async def begin(http: httpx.AsyncClient, **fields: Any) -> str:
    """The id of a response that is begun in the background."""
    answered = await http.post("/v1/responses", json=response_body(background=True, **fields))
    assert answered.status_code == 200, answered.text
    queued = checked(answered.json())
    assert (queued.status, queued.background, queued.output) == ("queued", True, [])
    return queued.id


async def fetch(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    found = await http.get(f"/v1/responses/{name}")
    assert found.status_code == 200, found.text
    checked(found.json())
    body: dict[str, Any] = found.json()
    return body


async def until(http: httpx.AsyncClient, name: str, *states: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (found := await fetch(http, name))["status"] not in states:  # noqa: ASYNC110 - as a client does
            await asyncio.sleep(0.02)
    return found


async def follow(http: httpx.AsyncClient, name: str, **query: str) -> bytes:
    answered = await http.get(f"/v1/responses/{name}", params={"stream": "true", **query})
    assert answered.status_code == 200
    assert answered.headers["content-type"].startswith("text/event-stream")
    return answered.content


async def test_a_response_is_made_while_its_client_polls(connect: Connect) -> None:
    http = connect(slowly())
    name = await begin(http, metadata={"a": "b"})
    await until(http, name, "in_progress")
    done = await until(http, name, "completed")
    assert checked(done).output_text == "0 1 2 3 4 "
    assert done["metadata"] == {"a": "b"}
    assert done["usage"]["output_tokens"] == 5
    # It can be gone on from, as any other.
    after = await respond(http, previous_response_id=name, store=False)
    assert after.status == "completed"


async def test_its_stream_is_resumed_after_any_event(connect: Connect) -> None:
    http = connect(slowly())
    streamed = await http.post("/v1/responses", json=response_body(background=True, stream=True))
    content = streamed.content
    events = read_background(content)
    assert types(events)[:3] == ["created", "queued", "in_progress"]
    assert types(events)[-1] == "completed"
    name = events[0]["response"]["id"]
    done = await until(http, name, "completed")
    assert events[-1]["response"] == done
    # From the store, now that it is over.
    assert read_background(await follow(http, name)) == events
    for number in (0, 3, len(events) - 2):
        rest = await follow(http, name, starting_after=str(number))
        assert parsed(rest) == events[number + 1 :]
    assert parsed(await follow(http, name, starting_after="999")) == []


@pytest.mark.process
async def test_it_is_resumed_where_its_client_left_also_after_a_restart() -> None:
    begun = response_body(background=True, stream=True)
    parser, left = EventStreamParser(), []
    async with serving(slowly(30)) as server:
        async with server.http.stream("POST", "/v1/responses", json=begun) as streamed:
            async for piece in streamed.aiter_bytes():
                left += [json.loads(event.data) for event in parser.feed(piece)]
                if len(left) > 6:
                    break
        name, seen = left[0]["response"]["id"], left[-1]["sequence_number"]
        rest = await follow(server.http, name, starting_after=str(seen))
    async with serving() as restarted:
        assert await follow(restarted.http, name, starting_after=str(seen)) == rest
    events = [*left, *parsed(rest)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert checked(events[-1]["response"]).output_text == "".join(f"{n} " for n in range(30))


async def test_several_clients_follow_one_response_while_it_is_made(connect: Connect) -> None:
    http = connect(slowly(20))
    name = await begin(http)
    await until(http, name, "in_progress")
    first, second = await asyncio.gather(follow(http, name), follow(http, name))
    assert first == second
    assert types(read_background(first))[-1] == "completed"


async def test_a_cancelled_response_ends_and_keeps_what_was_written(connect: Connect) -> None:
    pool = slowly(500)
    http = connect(pool)
    name = await begin(http)
    await until(http, name, "in_progress")
    await asyncio.sleep(0.1)
    cancelled = await http.post(f"/v1/responses/{name}/cancel")
    assert cancelled.status_code == 200
    assert checked(cancelled.json()).status == "cancelled"
    assert cancelled.json()["output"][0]["status"] == "incomplete"
    assert pool.client.cancelled == 1
    assert (await fetch(http, name)) == cancelled.json()
    # Again, it changes nothing.
    assert (await http.post(f"/v1/responses/{name}/cancel")).json() == cancelled.json()
    assert types(parsed(await follow(http, name)))[0] == "created"


async def test_what_failed_or_was_cancelled_is_resumed_after_any_event(connect: Connect) -> None:
    def failing(request: GenerationRequest) -> Iterable[Event | float | Exception]:
        yield from [*slowly().client.script(request)][:-1]
        yield WorkerDied("It died.")

    for pool, end in ((FakePool(failing), "failed"), (slowly(500), "cancelled")):
        http = connect(pool)
        name = await begin(http)
        await until(http, name, "in_progress")
        if end == "cancelled":
            await http.post(f"/v1/responses/{name}/cancel")
        ended = await until(http, name, end)
        events = parsed(await follow(http, name))
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        if end == "failed":
            assert events[-1]["response"] == ended
        for number in (0, len(events) - 2, len(events) - 1):
            rest = await follow(http, name, starting_after=str(number))
            assert parsed(rest) == events[number + 1 :]


async def test_only_a_response_in_the_background_can_be_cancelled(connect: Connect) -> None:
    http = connect()
    made = await respond(http)
    assert_error(await http.post(f"/v1/responses/{made.id}/cancel"), 400)


async def test_a_deleted_response_is_made_no_longer(connect: Connect) -> None:
    pool = slowly(500)
    http = connect(pool)
    name = await begin(http)
    await until(http, name, "in_progress")
    running = response_body(previous_response_id=name)
    assert_error(await http.post("/v1/responses", json=running), 400, param="previous_response_id")
    assert (await http.delete(f"/v1/responses/{name}")).status_code == 200
    assert pool.client.running == 0
    assert (await http.get(f"/v1/responses/{name}")).status_code == 404


async def test_an_error_makes_a_failed_response(connect: Connect) -> None:
    http = connect(FakePool(lambda _: [QueueFull("Full.", retry_after=3)]))
    name = await begin(http)
    failed = await until(http, name, "failed")
    assert failed["error"]["code"] == "rate_limit_exceeded"
    assert types(parsed(await follow(http, name)))[-1] == "failed"


async def test_a_model_that_is_not_there_is_said_at_once(connect: Connect) -> None:
    body = response_body(background=True, model="none")
    assert_error(
        await connect().post("/v1/responses", json=body),
        404,
        code="model_not_found",
        param="model",
    )


async def test_in_progress_is_repeated_while_nothing_comes(connect: Connect) -> None:
    http = connect(slowly(1, between=2.5), ping_seconds=0.2)
    name = await begin(http)
    await until(http, name, "completed")
    assert types(read_background(await follow(http, name))).count("in_progress") > 2


async def test_a_response_whose_server_has_gone_has_failed(connect: Connect) -> None:
    app = create_app(Settings(), slowly(500))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        name = await begin(http)
        await until(http, name, "in_progress")
        await asyncio.sleep(0.6)  # some events are stored
        other = connect()
        assert (await fetch(other, name))["status"] == "in_progress"
        store = app.state.context.store
        await store.write(
            lambda records: records.responses._connection.execute(update(runners).values(seen_at=0))
        )
        failed = await fetch(other, name)
        assert failed["status"] == "failed"
        assert failed["error"]["code"] == "server_error"
        events = parsed(await follow(other, name))
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert types(events)[-1] == "failed"
        # The server was only slow: what it still writes comes too late, and it stops.
        async with asyncio.timeout(30):
            while app.state.context.runs.get(name) is not None:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        assert await fetch(http, name) == failed
        await store.close()


async def test_a_response_whose_server_was_killed_on_this_system_has_failed_at_once(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = process_name()
    if not name:
        pytest.skip("the system does not tell of its processes")
    monkeypatch.setattr("server.api.runs.process_name", lambda: f"{name[:-1]}x")
    http, other = connect(slowly(500)), connect()
    response = await begin(http)
    assert (await fetch(other, response))["status"] == "failed"


async def test_another_server_follows_and_cancels_over_the_same_store(connect: Connect) -> None:
    pool = slowly(500)
    http, other = connect(pool), connect()
    name = await begin(http)
    await until(other, name, "in_progress")
    following = asyncio.create_task(follow(other, name))
    await asyncio.sleep(0.6)
    cancelled = await other.post(f"/v1/responses/{name}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    assert types(parsed(await following))[:3] == ["created", "queued", "in_progress"]
    async with asyncio.timeout(30):
        while pool.client.running:  # noqa: ASYNC110 - it is not ours to signal
            await asyncio.sleep(0.05)


async def test_a_server_that_stops_leaves_failed_responses() -> None:
    pool = slowly(500)
    app = create_app(Settings(), pool)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        name = await begin(http)
        await until(http, name, "in_progress")
        await app.state.context.runs.close()
        failed = await fetch(http, name)
    assert failed["status"] == "failed"
    assert failed["error"]["message"] == "The server was stopped."
    await app.state.context.store.close()


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 400])
async def test_events_after_no_number_are_refused(connect: Connect, after: str) -> None:
    http = connect()
    name = await begin(http)
    refused = await http.get(f"/v1/responses/{name}", params={"starting_after": after})
    assert_error(refused, 400, param="starting_after")


def parsed(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(sent.data) for sent in EventStreamParser().feed(content)]


def read_background(content: bytes) -> list[dict[str, Any]]:
    """The events of a response that was queued, checked as those of others are."""
    events = parsed(content)
    for event in events:
        _event.validate_python(event, strict=True)
    assert types(events)[:2] == ["created", "queued"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events

"""What clients get through the front, with replicas that work and replicas that are lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

import httpx
import pytest

from server.core.errors import Overloaded
from server.core.events import Accepted, Delta, Event
from server.core.request import GenerationRequest
from tests.api.fakes import answer, hello
from tests.cluster import in_process
from tests.cluster.in_process import KEY, Cluster, until

CHAT = {"model": "test", "messages": [{"role": "user", "content": "hi"}]}
STREAMED: dict[str, dict[str, object]] = {
    "/v1/chat/completions": CHAT | {"stream": True},
    "/v1/responses": {"model": "test", "input": "hi", "stream": True},
    "/v1/messages": CHAT | {"stream": True, "max_tokens": 9},
}


def endless(request: GenerationRequest) -> Iterable[Event | float]:
    """A token, and then nothing more."""
    yield Accepted(id=1, prompt_tokens=5, reply_prefix="", tools_active=False)
    yield Delta(id=1, index=0, text="Hel", tokens=1, logprobs=[])
    yield 3600.0


def silent(request: GenerationRequest) -> Iterable[Event | float]:
    """Not even a first token."""
    yield 3600.0
    yield from answer(request, "late")


async def test_an_answer_is_that_of_the_replica(cluster: Cluster, http: httpx.AsyncClient) -> None:
    await cluster.add("a")
    response = await http.post("/v1/chat/completions", json=CHAT)
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "Hello!"
    assert response.headers["x-dragoman-replica"] == "a"
    assert len(response.headers.get_list("date")) == 1


@pytest.mark.parametrize("path", STREAMED)
async def test_a_stream_arrives_event_by_event(
    cluster: Cluster, http: httpx.AsyncClient, path: str
) -> None:
    await cluster.add("a", endless)
    async with http.stream("POST", path, json=STREAMED[path]) as response:
        parts = response.aiter_bytes()
        seen = b""
        while b"Hel" not in seen:
            seen += await anext(parts)
    await until(lambda: cluster.replicas[0].pool.client.cancelled == 1)


@pytest.mark.parametrize("path", STREAMED)
async def test_a_stream_whose_replica_is_lost_ends_with_the_error_event_of_its_family(
    cluster: Cluster, http: httpx.AsyncClient, path: str
) -> None:
    replica = await cluster.add("a", endless)
    seen = ""
    async with http.stream("POST", path, json=STREAMED[path]) as response:
        async for part in response.aiter_text():
            seen += part
            if "Hel" in part:
                await replica.kill()
    *_, last, rest = seen.split("\n\n")
    assert rest == ""
    assert "The replica was lost while it answered." in last
    wanted = {
        "/v1/chat/completions": 'data: {"error":{',
        "/v1/responses": 'event: error\ndata: {"type":"error","code":"server_error"',
        "/v1/messages": 'event: error\ndata: {"type":"error"',
    }
    assert last.startswith(wanted[path])
    if path == "/v1/responses":
        assert '"sequence_number":0' not in last


@pytest.mark.parametrize("path", STREAMED)
async def test_a_request_whose_replica_is_lost_before_it_answers_is_answered_by_another(
    cluster: Cluster, http: httpx.AsyncClient, path: str
) -> None:
    lost = await cluster.add("a", silent)
    await cluster.add("b", hello)
    body = STREAMED[path] | {"stream": False}
    asking = asyncio.create_task(http.post(path, json=body))
    await until(lambda: lost.pool.client.running)
    await lost.kill()
    response = await asking
    assert response.status_code == 200
    assert response.headers["x-dragoman-replica"] == "b"


async def test_a_replica_that_cannot_be_reached_costs_no_request(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    lost = await cluster.add("a")
    await cluster.add("b")
    assert (await http.post("/v1/chat/completions", json=CHAT)).headers["x-dragoman-replica"] == "a"
    await lost.kill()
    for _ in range(5):
        response = await http.post("/v1/chat/completions", json=CHAT)
        assert response.headers["x-dragoman-replica"] == "b"


async def test_a_request_that_keeps_something_is_not_sent_twice(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    lost = await cluster.add("a", silent)
    other = await cluster.add("b", hello)
    body = {"model": "test", "input": "hi", "background": True}
    # Without a store nothing can run in the background; what counts is where the request goes.
    response = await http.post("/v1/responses", json=body)
    assert response.headers["x-dragoman-replica"] == "a"
    cut = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT | {"background": True}))
    await until(lambda: lost.pool.client.running)
    await lost.kill()
    assert (await cut).status_code == 500
    assert other.pool.client.requests == []


async def test_a_replica_that_is_about_to_end_gets_no_more_requests_and_finishes_its_own(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    replica = await cluster.add("a", lambda request: (0.2, *hello(request)))
    await cluster.add("b")
    running = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
    await until(lambda: replica.pool.client.running)
    replica.drain.begin(10)  # it has not yet told the front
    later = await http.post("/v1/chat/completions", json=CHAT)
    assert later.status_code == 200
    assert later.headers["x-dragoman-replica"] == "b"
    assert (await running).headers["x-dragoman-replica"] == "a"


@pytest.mark.parametrize("path", STREAMED)
async def test_a_request_that_meets_the_end_of_its_replica_is_answered_by_another(
    cluster: Cluster, http: httpx.AsyncClient, path: str
) -> None:
    replica = await cluster.add("a", lambda request: [0.2, Overloaded("It is shutting down.")])
    await cluster.add("b")
    asking = asyncio.create_task(http.post(path, json=STREAMED[path] | {"stream": False}))
    await until(lambda: replica.pool.client.running)
    replica.drain.begin(10)
    response = await asking
    assert (response.status_code, response.headers["x-dragoman-replica"]) == (200, "b")


async def test_without_a_replica_the_error_is_that_of_the_family(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.cluster.front.forwarding._PATIENCE_SECONDS", 0.05)
    response = await http.post("/v1/messages", json=STREAMED["/v1/messages"])
    assert response.status_code in (503, 529)
    assert response.json()["type"] == "error"
    assert int(response.headers["retry-after"]) > 0


async def test_a_request_waits_for_a_replica_that_is_about_to_report(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    asking = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
    await cluster.add("a")
    assert (await asking).status_code == 200


async def test_errors_and_their_headers_pass_unchanged(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    await cluster.add("a", api_keys=["sesame"])
    refused = await http.post("/v1/chat/completions", json=CHAT)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    entered = {"authorization": "Bearer sesame"}
    missing = await http.post("/v1/chat/completions", json=CHAT | {"model": "x"}, headers=entered)
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
    broken = await http.post(
        "/v1/chat/completions",
        content=b"{",
        headers=entered | {"content-type": "application/json", "x-request-id": "mine"},
    )
    assert broken.status_code == 400
    assert broken.headers["x-request-id"] == "mine"


async def test_the_offer_of_a_websocket_is_declined_with_the_protocol_that_there_is(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    await cluster.add("a")
    offer = {"connection": "Upgrade", "upgrade": "websocket"}
    refused = await http.get("/v1/responses", headers=offer)
    assert refused.status_code == 426
    assert refused.headers["upgrade"] == "HTTP/1.1"
    assert refused.headers["connection"] == "upgrade"
    assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_models_of_all_replicas_are_one_list(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    await cluster.add("a")
    await cluster.add("b")
    openai = (await http.get("/v1/models")).json()
    assert [model["id"] for model in openai["data"]] == ["test", "org/broken"]
    anthropic = (await http.get("/v1/models", headers={"anthropic-version": "2023-06-01"})).json()
    assert anthropic["first_id"] == anthropic["data"][0]["id"]
    head = await http.head("/v1/models")
    assert (head.status_code, head.content) == (200, b"")


async def test_a_request_goes_to_a_replica_that_has_its_model(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    first = await cluster.add("a")
    await cluster.add("b")
    first.models = ["other"]
    await until(lambda: cluster.members.find("a").said.models == ["other"])
    response = await http.post("/v1/chat/completions", json=CHAT | {"model": "TEST:latest"})
    assert response.headers["x-dragoman-replica"] == "b"


async def test_metrics_name_their_replica(cluster: Cluster, http: httpx.AsyncClient) -> None:
    await cluster.add("a")
    await cluster.add("b")
    await http.post("/v1/chat/completions", json=CHAT)
    page = (await http.get("/metrics")).text
    assert 'dragoman_requests_in_flight{replica="a"}' in page
    assert 'dragoman_requests_in_flight{replica="front"}' in page
    assert page.count("# TYPE dragoman_requests_in_flight ") == 1
    assert 'dragoman_ttft_seconds_count{model="test",replica="a"} 1.0' in page


async def test_the_port_of_a_replica_is_for_the_front_alone(cluster: Cluster) -> None:
    replica = await cluster.add("a")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{replica.port}") as direct:
        for headers in ({}, {"x-dragoman-cluster": "guessed"}):
            response = await direct.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert response.status_code == 403
        assert (await direct.get("/health")).status_code == 403
    assert replica.pool.client.requests == []


async def test_a_client_cannot_speak_for_the_front(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    await cluster.add("a")
    response = await http.get("/cluster/replicas", headers={"authorization": "Bearer guessed"})
    assert response.status_code == 403
    told = await http.get("/cluster/replicas", headers={"authorization": f"Bearer {KEY}"})
    assert told.json()["replicas"][0]["id"] == "a"


async def test_nobody_joins_without_the_key(cluster: Cluster) -> None:
    reader, writer = await asyncio.open_connection(*cluster.address)
    writer.write(b"guessed\n")
    assert await reader.read() == b""
    writer.close()


async def test_readiness_wants_a_replica_of_each_group(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    assert (await http.get("/health/ready")).status_code == 503
    assert (await http.get("/health/live")).status_code == 200
    replica = await cluster.add("a")
    assert (await http.get("/health/ready")).json()["groups"] == {
        "chat": {"ready": 1, "starting": 0}
    }
    await replica.kill()
    await until(lambda: not cluster.members.serving(None))
    assert (await http.get("/health/ready")).status_code == 503


async def test_models_are_loaded_and_unloaded_on_every_replica(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    replicas = [await cluster.add("a"), await cluster.add("b")]
    response = await http.post("/v1/models/unload", json={"model": "test"})
    assert response.status_code == 200
    assert [replica.pool.state for replica in replicas] == ["unloaded", "unloaded"]


async def test_a_client_that_leaves_frees_its_replica(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    replica = await cluster.add("a", silent)
    asking = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
    await until(lambda: replica.pool.client.running)
    asking.cancel()
    await until(lambda: replica.pool.client.cancelled == 1)
    assert cluster.members.find("a").in_flight == 0


async def test_the_limits_of_connections_hold_at_the_front() -> None:
    async with (
        in_process.running(max_header_bytes=2048) as cluster,
        in_process.client(cluster) as http,
    ):
        response = await http.get("/v1/models", headers={"x-long": "x" * 3000})
        assert response.status_code == 431


async def test_requests_one_after_the_other_share_a_connection_to_their_replica(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    replica = await cluster.add("a")
    for body in (CHAT, CHAT | {"stream": True}, CHAT):
        assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
        assert len(replica.server.server_state.connections) == 1


async def test_a_connection_on_which_a_request_was_left_unfinished_takes_no_other(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    await cluster.add("a", api_keys=["right"])
    reader, writer = await asyncio.open_connection(*cluster.socket.getsockname())
    kind = "content-type: multipart/form-data; boundary=x"
    writer.write(f"POST /v1/files HTTP/1.1\r\nhost: localhost\r\n{kind}\r\n".encode())
    writer.write(b"content-length: 100000\r\n\r\nsome")
    answered = asyncio.create_task(reader.readline())
    while not answered.done():
        writer.write(b"more")
        await asyncio.sleep(0.01)
    assert b" 401 " in await answered
    await until(lambda: not cluster.members.find("a").in_flight)
    # Its bytes would be taken for the rest of the upload.
    headers = {"authorization": "Bearer right"}
    response = await http.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert response.status_code == 200
    writer.close()


async def test_headers_that_a_client_lists_as_those_of_its_connection_go_no_further(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    await cluster.add("a", api_keys=["right"])
    headers = {
        "authorization": "Bearer right",
        "connection": "keep-alive, Authorization, content-length, content-type, host",
    }
    assert (await http.get("/v1/models", headers=headers)).status_code == 401
    response = await http.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert response.status_code == 401


NO_ANSWERS = {
    "a status that there is not": b"HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n",
    "an answer before the answer": b"HTTP/1.1 102 Processing\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "another language": b"\x16\x03\x01\x02\x00 is no HTTP\r\n\r\n",
    "a length that is no number": b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"x-more: and more\r\n" * 30_000,
}


@pytest.mark.parametrize("what", NO_ANSWERS)
async def test_a_replica_that_answers_nonsense_is_left_out(
    cluster: Cluster, http: httpx.AsyncClient, what: str
) -> None:
    async with in_process.answering(cluster, "a", NO_ANSWERS[what]) as asked:
        await cluster.add("b")
        for _ in range(3):
            response = await http.post("/v1/chat/completions", json=CHAT)
            assert (response.status_code, response.headers["x-dragoman-replica"]) == (200, "b")
    assert asked.count == 1


@pytest.mark.parametrize("what", NO_ANSWERS)
@pytest.mark.parametrize("path", STREAMED)
async def test_where_no_other_replica_answers_it_is_502(
    cluster: Cluster,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    what: str,
) -> None:
    monkeypatch.setattr("server.cluster.front.forwarding._PATIENCE_SECONDS", 0.05)
    async with in_process.answering(cluster, "a", NO_ANSWERS[what]):
        response = await http.post(path, json=STREAMED[path])
    assert response.status_code == 502
    error = response.json()["error"]
    assert error["type"] == ("api_error" if path == "/v1/messages" else "server_error")
    assert "sensible" in error["message"]


async def test_a_request_that_is_not_sent_twice_is_502_at_once(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    nonsense = NO_ANSWERS["a status that there is not"]
    async with in_process.answering(cluster, "a", nonsense):
        other = await cluster.add("b", hello)
        response = await http.post("/v1/chat/completions", json=CHAT | {"background": True})
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "bad_gateway"
    assert other.pool.client.requests == []


async def test_a_stream_that_turns_to_nonsense_ends_with_the_error_event(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    async with in_process.answering(cluster, "a", head + b"\r\na\r\ndata: {}\n\n\r\nzzz\r\n"):
        response = await http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert response.text.startswith("data: {}")
    assert "The replica was lost while it answered." in response.text


LISTS = {
    "broken": b'{"object": "list", "data": [',
    "not a page": b"[]",
    "without a list": b'{"object": "list"}',
    "no entries": b'{"object": "list", "data": [1, 2]}',
    "not JSON": b"<html>",
    "nothing": b"",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", LISTS.values(), ids=LISTS)
async def test_a_list_of_nonsense_is_left_out_of_the_joined_one(
    cluster: Cluster, http: httpx.AsyncClient, body: bytes
) -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    async with in_process.answering(cluster, "a", page):
        alone = await http.get("/v1/models")
        assert alone.status_code == 502
        assert alone.json()["error"]["code"] == "bad_gateway"
    async with in_process.answering(cluster, "c", page) as asked:
        await cluster.add("b")
        for _ in range(2):
            listed = (await http.get("/v1/models")).json()
            assert [model["id"] for model in listed["data"]] == ["test", "org/broken"]
    assert asked.count == 1


async def test_lines_of_nonsense_are_left_out_of_the_metrics(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    body = b'# x\nno sample at all\nopen{le="1} 2\ngood{le="1"} 2\n\xff\xfe 1\n'
    page = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    async with in_process.answering(cluster, "a", page):
        text = (await http.get("/metrics")).text
    assert [line for line in text.splitlines() if 'replica="a"' in line] == [
        'good{le="1",replica="a"} 2'
    ]


async def test_a_port_that_there_is_not_is_no_replica(
    cluster: Cluster, http: httpx.AsyncClient
) -> None:
    reader, writer = await asyncio.open_connection(*cluster.address)
    said = {"id": "x", "group": "chat", "host": "127.0.0.1", "port": 99_999, "models": ["test"]}
    said |= {"ready": True, "draining": False}
    writer.write(f"{KEY}\n{json.dumps(said)}\n".encode())
    assert await reader.read() == b""
    writer.close()
    assert cluster.members.all() == []


async def test_an_upload_that_is_refused_early_is_answered_at_once(cluster: Cluster) -> None:
    await cluster.add("a", api_keys=["right"])
    reader, writer = await asyncio.open_connection(*cluster.socket.getsockname())
    kind = "content-type: multipart/form-data; boundary=x"
    writer.write(f"POST /v1/files HTTP/1.1\r\nhost: localhost\r\n{kind}\r\n".encode())
    writer.write(b"content-length: 100000\r\n\r\nsome")
    # The rest never comes.
    assert b" 401 " in await reader.readline()
    writer.close()
    await until(lambda: not cluster.members.find("a").in_flight)

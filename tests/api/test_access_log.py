"""The access log: one line for each request, with what it used and nothing of what it says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import httpx
import pytest

from server.core.errors import QueueFull
from server.core.events import Accepted, Delta, Event, Failed
from server.core.request import GenerationRequest
from tests.api.fakes import FakePool, answer
from tests.api.serving import pausing, serving
from tests.api.wire import CHAT, chat_body

Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture(autouse=True)
def everything_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the access log."""
    return [each.getMessage() for each in caplog.records if each.name == "dragoman.access"]


def last_fields(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    """The fields of the last line."""
    records = [each for each in caplog.records if each.name == "dragoman.access"]
    fields: dict[str, object] = records[-1].__dict__["fields"]
    return fields


def cached(request: GenerationRequest) -> Iterable[Event]:
    return answer(request, "Hel", "lo", cached_tokens=4)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat_body(model="alias")),
        ("/v1/completions", {"model": "alias", "prompt": "hi"}),
        ("/v1/responses", {"model": "alias", "input": "hi"}),
        (
            "/v1/messages",
            {"model": "alias", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
        ),
    ],
)
async def test_a_line_has_model_tokens_and_time_to_first_token_in_every_family(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, object],
    stream: bool,
) -> None:
    response = await connect(FakePool(cached)).post(path, json={**body, "stream": stream})
    assert response.status_code == 200
    assert len(lines(caplog)) == 1
    fields = last_fields(caplog)
    assert fields["model"] == "test"
    assert (fields["prompt_tokens"], fields["cached_tokens"]) == (5, 4)
    assert fields["completion_tokens"] == 2
    ttft, seconds = fields["ttft_seconds"], fields["seconds"]
    assert isinstance(ttft, float)
    assert isinstance(seconds, float)
    assert 0 <= ttft <= seconds
    assert (
        " model=test prompt_tokens=5 completion_tokens=2 cached_tokens=4 ttft_" in lines(caplog)[0]
    )


async def test_tokens_of_several_prompts_and_answers_are_added_up(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"model": "test", "prompt": ["a", "b"], "n": 2}
    await connect(FakePool(cached)).post("/v1/completions", json=body)
    fields = last_fields(caplog)
    assert (fields["prompt_tokens"], fields["completion_tokens"]) == (10, 8)
    assert fields["cached_tokens"] == 8


async def test_embeddings_tell_their_model_and_tokens(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    await connect().post("/v1/embeddings", json={"model": "alias", "input": "abc"})
    fields = last_fields(caplog)
    assert (fields["model"], fields["prompt_tokens"]) == ("test", 3)
    assert "ttft_seconds" not in fields


async def test_loading_a_model_tells_which(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    await connect().post("/v1/models/load", json={"model": "alias"})
    assert last_fields(caplog)["model"] == "test"


async def test_a_request_that_failed_tells_what_it_used_until_then(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Delta(id=1, index=0, text="a b", tokens=2)
        yield Failed(id=1, error=QueueFull("full").info)

    assert (await connect(FakePool(failing)).post(CHAT, json=chat_body())).status_code == 429
    fields = last_fields(caplog)
    assert (fields["status"], fields["model"], fields["completion_tokens"]) == (429, "test", 2)


async def test_a_request_that_never_reached_its_model_tells_which_it_asked_for(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    http = connect()
    # Quoted, since it could pretend to be another line or field.
    await http.post(CHAT, json=chat_body(model="no\nstatus=200"))
    assert lines(caplog)[-1].endswith(r' model="no\nstatus=200"')
    await http.post(CHAT, json=chat_body(model="x" * 5000))
    assert len(lines(caplog)[-1]) < 400


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/no/such/path"])
async def test_a_request_without_a_model_tells_of_none(
    connect: Connect, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    await connect().get(path)
    assert last_fields(caplog).keys() == {"client", "method", "path", "status", "seconds"}
    assert lines(caplog)[0].endswith("s")


async def test_neither_prompt_nor_answer_is_in_a_line(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    body = chat_body(messages=[{"role": "user", "content": "my diary"}])
    await connect(log_contents=True).post(CHAT, json=body)
    line = lines(caplog)[-1] + str(last_fields(caplog))
    assert "diary" not in line
    assert "Hel" not in line


async def test_durations_and_waits_are_histograms_by_model(connect: Connect) -> None:
    def waited(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, "a", queue_seconds=3)

    http = connect(FakePool(waited))
    await http.post(CHAT, json=chat_body())
    await http.post(CHAT, json=chat_body(model="made up"))
    text = (await http.get("/metrics")).text
    assert f'dragoman_request_seconds_count{{model="test",route="{CHAT}"}} 1.0' in text
    assert f'dragoman_request_seconds_count{{model="",route="{CHAT}"}} 1.0' in text
    assert 'dragoman_queue_seconds_sum{model="test"} 3.0' in text
    # Clients must not be able to make series.
    assert "made up" not in text


@pytest.mark.process
async def test_a_client_that_leaves_has_its_line_with_the_tokens_it_cost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(pausing(0.0, 0.02, 500)) as running:
        async with running.http.stream("POST", CHAT, json=chat_body(stream=True)) as response:
            async for line in response.aiter_lines():
                if '"x"' in line:
                    break
        await running.until(lambda: bool(lines(caplog)))
    fields = last_fields(caplog)
    assert (fields["status"], fields["prompt_tokens"]) == (200, 5)
    assert fields["completion_tokens"] in range(1, 400)

"""A request whose worker dies is asked again, once, as long as its client got nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest

from server.core.errors import WorkerDied
from server.core.events import Accepted, Delta, Event
from server.core.request import GenerationRequest
from tests.api.fakes import FakePool, hello
from tests.api.responses.wire import response_body
from tests.api.wire import chat_body, completion_body

Connect = Callable[..., httpx.AsyncClient]

_DEATH = WorkerDied("The worker was killed.")
_BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat_body(),
    "/v1/completions": completion_body(),
    "/v1/responses": response_body(),
    "/v1/messages": {**chat_body(), "max_tokens": 9},
    "/infill": {"model": "test", "input_prefix": "a", "input_suffix": "b"},
}

each_path = pytest.mark.parametrize("path", _BODIES)


def _shape(stream: str) -> str:
    """A stream without what differs from one to the next: ids and times."""
    return re.sub(r'"([a-z_]*id|[a-z]+_at|created)": ?("[^"]*"|[0-9.]+)', "", stream)


class Dying:
    """A script: the first workers die, each after so many events of a request."""

    def __init__(self, *befores: int) -> None:
        self.tries = 0
        self._befores = iter(befores)

    def __call__(self, request: GenerationRequest) -> Iterable[Event | Exception]:
        self.tries += 1
        before = next(self._befores, None)
        if before is None:
            yield from hello(request)
            return
        begun: list[Event] = [
            Accepted(id=1, prompt_tokens=5),
            Delta(id=1, index=0, text="Lost", tokens=1),
        ]
        yield from begun[:before]
        yield _DEATH


@each_path
@pytest.mark.parametrize("before", range(3))
async def test_a_whole_answer_comes_from_the_second_worker_alone(
    connect: Connect, path: str, before: int
) -> None:
    script = Dying(before)
    answered = await connect(FakePool(script)).post(path, json=_BODIES[path])
    assert answered.status_code == 200, answered.text
    assert "Hello!" in answered.text
    assert "Lost" not in answered.text
    assert script.tries == 2


@each_path
@pytest.mark.parametrize("before", range(2))
async def test_a_stream_in_which_nothing_was_said_comes_from_the_second_worker(
    connect: Connect, path: str, before: int
) -> None:
    script = Dying(before)
    body = {**_BODIES[path], "stream": True}
    undisturbed = await connect(FakePool()).post(path, json=body)
    answered = await connect(FakePool(script)).post(path, json=body)
    assert answered.status_code == 200, answered.text
    assert _shape(answered.text) == _shape(undisturbed.text)
    assert script.tries == 2


@each_path
async def test_a_stream_in_which_something_was_said_ends_with_the_error(
    connect: Connect, path: str
) -> None:
    script = Dying(2)
    body = {**_BODIES[path], "stream": True}
    answered = await connect(FakePool(script)).post(path, json=body)
    assert answered.status_code == 200
    assert "The worker was killed." in answered.text
    assert script.tries == 1


@each_path
@pytest.mark.parametrize("befores", [(0, 1), (1, 0), (1, 1)])
async def test_a_stream_whose_second_worker_dies_too_ends_with_the_error(
    connect: Connect, path: str, befores: tuple[int, int]
) -> None:
    script = Dying(*befores)
    body = {**_BODIES[path], "stream": True}
    answered = await connect(FakePool(script)).post(path, json=body)
    assert "The worker was killed." in answered.text
    assert "Hel" not in answered.text
    assert script.tries == 2


@each_path
async def test_a_second_worker_that_reads_the_prompt_otherwise_does_not_go_on(
    connect: Connect, path: str
) -> None:
    """The model's file was replaced meanwhile, and the client has heard of another prompt."""
    counts = iter([5, 6])

    def script(request: GenerationRequest) -> Iterable[Event | Exception]:
        count = next(counts)
        yield Accepted(id=1, prompt_tokens=count)
        if count == 5:
            yield _DEATH
        yield Delta(id=1, index=0, text="Other", tokens=1, logprobs=[])

    body = {**_BODIES[path], "stream": True}
    answered = await connect(FakePool(script)).post(path, json=body)
    assert "The worker was killed." in answered.text
    assert "Other" not in answered.text


@each_path
@pytest.mark.parametrize("stream", [False, True])
async def test_there_is_no_third_try_and_the_client_is_asked_to_make_none(
    connect: Connect, path: str, *, stream: bool
) -> None:
    """A request that kills workers would otherwise make the model unavailable to all."""
    script = Dying(0, 0, 0)
    answered = await connect(FakePool(script)).post(path, json={**_BODIES[path], "stream": stream})
    assert answered.status_code == 500
    assert answered.json()["error"]["message"] == "The worker was killed."
    assert answered.headers["x-should-retry"] == "false"
    assert script.tries == 2


@pytest.mark.parametrize("pauses", [(0, 0), (0, 0.02), (0.02, 0)])
async def test_all_prompts_of_a_stream_go_to_the_second_worker_in_whichever_order_they_fail(
    connect: Connect, pauses: tuple[float, float]
) -> None:
    tries = 0

    def script(request: GenerationRequest) -> Iterable[Event | Exception | float]:
        nonlocal tries
        tries += 1
        if tries > 2:
            yield from hello(request)
            return
        yield Accepted(id=1, prompt_tokens=5)
        yield pauses[tries - 1]
        yield _DEATH

    body = completion_body(prompt=["a", "b"], stream=True)
    answered = await connect(FakePool(script)).post("/v1/completions", json=body)
    frames = [line[6:] for line in answered.text.splitlines() if line.startswith("data: {")]
    texts = {0: "", 1: ""}
    for choice in (choice for frame in frames for choice in json.loads(frame)["choices"]):
        texts[choice["index"]] += choice["text"]
    assert texts == {0: "Hello!", 1: "Hello!"}

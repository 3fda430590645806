"""A request whose worker dies is asked again, once, as long as its client got nothing."""

from __future__ import annotations

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

pytestmark = pytest.mark.parametrize("path", _BODIES)


class Dying:
    """A script: the first ``deaths`` workers die after ``before`` events of a request."""

    def __init__(self, deaths: int, before: int) -> None:
        self.tries = 0
        self._deaths = deaths
        self._before = before

    def __call__(self, request: GenerationRequest) -> Iterable[Event | Exception]:
        self.tries += 1
        if self.tries > self._deaths:
            yield from hello(request)
            return
        begun: list[Event] = [
            Accepted(id=1, prompt_tokens=5),
            Delta(id=1, index=0, text="Lost", tokens=1),
        ]
        yield from begun[: self._before]
        yield _DEATH


@pytest.mark.parametrize("before", range(3))
async def test_a_whole_answer_comes_from_the_second_worker_alone(
    connect: Connect, path: str, before: int
) -> None:
    script = Dying(1, before)
    answered = await connect(FakePool(script)).post(path, json=_BODIES[path])
    assert answered.status_code == 200, answered.text
    assert "Hello!" in answered.text
    assert "Lost" not in answered.text
    assert script.tries == 2


async def test_a_stream_that_has_not_begun_comes_from_the_second_worker(
    connect: Connect, path: str
) -> None:
    script = Dying(1, before=0)
    body = {**_BODIES[path], "stream": True}
    answered = await connect(FakePool(script)).post(path, json=body)
    assert answered.status_code == 200, answered.text
    assert answered.text.count("Hel") >= 1
    assert "killed" not in answered.text
    assert script.tries == 2


@pytest.mark.parametrize("before", [1, 2])
async def test_a_stream_that_has_begun_ends_with_the_error(
    connect: Connect, path: str, before: int
) -> None:
    script = Dying(1, before)
    body = {**_BODIES[path], "stream": True}
    answered = await connect(FakePool(script)).post(path, json=body)
    assert answered.status_code == 200
    assert "The worker was killed." in answered.text
    assert script.tries == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_there_is_no_third_try_and_the_client_is_asked_to_make_none(
    connect: Connect, path: str, *, stream: bool
) -> None:
    """A request that kills workers would otherwise make the model unavailable to all."""
    script = Dying(3, before=0)
    answered = await connect(FakePool(script)).post(path, json={**_BODIES[path], "stream": stream})
    assert answered.status_code == 500
    assert answered.json()["error"]["message"] == "The worker was killed."
    assert answered.headers["x-should-retry"] == "false"
    assert script.tries == 2

"""An adapter that applies from its invocation on, and was not invoked: said in every family."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest

from server.core.events import Accepted, Delta, Event, Finished
from server.core.request import GenerationRequest
from tests.api.fakes import FakePool, usage
from tests.api.wire import CHAT, chat_body

Connect = Callable[..., httpx.AsyncClient]

SAID = [{"role": "user", "content": "hi"}]
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat_body()),
    ("/v1/completions", {"model": "test", "prompt": ["hi", "ho"]}),
    ("/v1/responses", {"model": "test", "input": "hi"}),
    ("/v1/messages", {"model": "test", "max_tokens": 9, "messages": SAID}),
    ("/infill", {"input_prefix": "hi", "input_suffix": ""}),
]


def script(request: GenerationRequest) -> Iterable[Event]:
    yield Accepted(id=1, prompt_tokens=5, ignored=["adapter judge (not invoked)"])
    for index in range(request.n):
        yield Delta(id=1, index=index, text="so", tokens=1)
        yield Finished(id=1, index=index, reason="stop", usage=usage(1))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_an_answer_names_an_adapter_that_was_not_invoked(
    connect: Connect, path: str, body: dict[str, Any], stream: bool
) -> None:
    async with connect(FakePool(script)) as http:
        answer = await http.post(path, json={**body, "stream": stream, "colour": 1})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-dragoman-ignored"] == "colour, adapter judge (not invoked)"

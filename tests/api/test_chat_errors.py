"""Errors of chat completions: their statuses, places and times."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import httpx
import pytest

from server.core.errors import (
    ConversationError,
    ErrorInfo,
    InvalidRequest,
    Locator,
    QueueFull,
    WorkerDied,
)
from server.core.events import Accepted, Delta, Event, Failed
from server.core.request import GenerationRequest
from tests.api.fakes import FakePool, Script
from tests.api.wire import (
    CHAT,
    assert_error,
    chat_body,
    events,
)

Connect = Callable[..., httpx.AsyncClient]


def failing(error: ErrorInfo, *, after: int) -> Script:
    def script(request: GenerationRequest) -> Iterable[Event]:
        if after:
            yield Accepted(id=1, prompt_tokens=5)
            yield Delta(id=1, index=0, text="Hel", tokens=1)
        yield Failed(id=1, error=error)

    return script


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_error_of_a_stream_is_a_real_http_error(
    connect: Connect, stream: bool
) -> None:
    error = QueueFull("The queue is full.", retry_after=2.4).info
    response = await connect(FakePool(failing(error, after=0))).post(
        CHAT, json=chat_body(stream=stream)
    )
    assert_error(response, 429, type_="rate_limit_error", code="queue_full")
    assert response.headers["retry-after"] == "3"


async def test_a_wait_of_less_than_a_second_is_told_as_one_second(connect: Connect) -> None:
    error = QueueFull("The queue is full.", retry_after=0.2).info
    response = await connect(FakePool(failing(error, after=0))).post(CHAT, json=chat_body())
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("at", "param"),
    [
        (
            ("messages", 2, "tool_calls", 0, "arguments"),
            "messages[2].tool_calls[0].function.arguments",
        ),
        (("template_kwargs", "mood"), "chat_template_kwargs.mood"),
        (("sampling", "top_k"), "top_k"),
        (("prompt",), "messages"),
    ],
)
async def test_a_canonical_place_becomes_the_field_of_the_body(
    connect: Connect, at: Locator, param: str
) -> None:
    error = InvalidRequest("No.", at=at).info
    response = await connect(FakePool(failing(error, after=0))).post(CHAT, json=chat_body())
    assert_error(response, 400, param=param)


async def test_a_template_that_raises_is_400(connect: Connect) -> None:
    error = ConversationError("Roles must alternate.", at=("messages", 1)).info
    response = await connect(FakePool(failing(error, after=0))).post(CHAT, json=chat_body())
    assert_error(response, 400, code="invalid_conversation", param="messages[1]")


@pytest.mark.parametrize("raised", [False, True])
async def test_a_later_error_is_an_event_and_no_done_follows(
    connect: Connect, raised: bool
) -> None:
    def dying(request: GenerationRequest) -> Iterable[Event | Exception]:
        yield Accepted(id=1, prompt_tokens=5)
        yield WorkerDied("The model's process was killed.")

    failed = failing(WorkerDied("The model's process was killed.").info, after=1)
    http = connect(FakePool(dying if raised else failed))
    response = await http.post(CHAT, json=chat_body(stream=True))
    assert response.status_code == 200
    last = events(response.text)[-1]
    assert "[DONE]" not in response.text
    assert last == (
        '{"error":{"message":"The model\'s process was killed.","type":"server_error",'
        '"param":null,"code":"worker_died"}}'
    )


async def test_a_failure_of_a_whole_answer_is_an_http_error_however_late(connect: Connect) -> None:
    error = WorkerDied("The model's process was killed.").info
    response = await connect(FakePool(failing(error, after=1))).post(CHAT, json=chat_body())
    assert_error(response, 500, type_="server_error", code="worker_died")

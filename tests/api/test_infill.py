"""``POST /infill`` over the fake pool."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from server.core.errors import ContextLengthExceeded, InvalidRequest
from server.core.request import SourceFile, TextPrompt
from tests.api.fakes import FakePool, answer
from tests.api.wire import assert_error

INFILL = "/infill"


def body(**fields: Any) -> dict[str, Any]:
    return {"input_prefix": "def f(", "input_suffix": "): pass", **fields}


async def infill(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await http.post(INFILL, json=body(**fields))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_a_gap_is_filled(http: httpx.AsyncClient, pool: FakePool) -> None:
    found = await infill(http)
    assert found["content"] == "Hello!"
    assert (found["stop"], found["stop_type"], found["model"]) == (True, "eos", "test")
    assert (found["tokens_evaluated"], found["tokens_predicted"]) == (5, 3)
    timings = found["timings"]
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (0, 5, 3)
    (request,) = pool.client.requests
    assert request.prompt == TextPrompt(text="def f(", suffix="): pass", literal=True)
    assert request.max_tokens is None


async def test_the_body_of_editors_is_understood(http: httpx.AsyncClient, pool: FakePool) -> None:
    response = await http.post(
        INFILL,
        json=body(
            input_extra=[{"filename": "a.py", "text": "A"}, {"text": "B", "time": 1}],
            prompt="  x",
            n_predict=128,
            top_k=40,
            samplers=["top_k", "infill"],
            cache_prompt=True,
            t_max_predict_ms=500,
        ),
    )
    assert response.status_code == 200
    ignored = response.headers["x-dragoman-ignored"].split(", ")
    assert sorted(ignored) == ["input_extra.time", "samplers", "t_max_predict_ms"]
    (request,) = pool.client.requests
    files = [SourceFile("a.py", "A"), SourceFile("snippet", "B")]
    assert request.prompt == TextPrompt(
        text="def f(  x", suffix="): pass", files=files, literal=True
    )
    assert (request.max_tokens, request.sampling.top_k) == (128, 40)


async def test_an_answer_has_only_the_fields_that_are_asked_for(http: httpx.AsyncClient) -> None:
    fields = ["content", "timings/prompt_n", "none", "content/none"]
    found = await infill(http, response_fields=fields)
    assert found == {"content": "Hello!", "timings/prompt_n": 5}


async def test_a_stream_ends_with_the_event_that_says_so(http: httpx.AsyncClient) -> None:
    response = await http.post(INFILL, json=body(stream=True))
    events = [
        json.loads(block.removeprefix("data: ")) for block in response.text.split("\n\n") if block
    ]
    assert [event["content"] for event in events] == ["Hel", "lo", "!", ""]
    assert [event["stop"] for event in events] == [False, False, False, True]
    assert events[-1]["stop_type"] == "eos"
    assert [event["tokens_evaluated"] for event in events] == [5] * 4


async def test_how_an_answer_ended(http: httpx.AsyncClient, pool: FakePool) -> None:
    pool.client.script = lambda request: answer(request, "a", reason="length")
    assert (await infill(http, n_predict=1))["stop_type"] == "limit"
    pool.client.script = lambda request: answer(request, "ab;")
    found = await infill(http, stop=["b"])
    assert (found["stop_type"], found["stopping_word"], found["content"]) == ("eos", "", "ab;")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input_prefix": 5}, "input_prefix"),
        ({"input_suffix": None}, "input_suffix"),
        ({"input_extra": [{"filename": "a"}]}, "input_extra[0].text"),
        ({"input_extra": "a"}, "input_extra"),
        ({"n_predict": "a"}, "n_predict"),
        ({"n_predict": 1, "max_tokens": 2}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"model": "org/broken"}, None),
    ],
)
async def test_a_wrong_body_is_refused(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str | None
) -> None:
    response = await http.post(INFILL, json=body(**fields))
    if param is None:
        assert response.status_code == 503
    else:
        assert_error(response, 400, param=param)


@pytest.mark.parametrize(
    ("error", "param", "code"),
    [
        (InvalidRequest("It has none.", at=("suffix",)), "input_suffix", None),
        (ContextLengthExceeded("No.", at=("prompt",)), "input_prefix", "context_length_exceeded"),
    ],
)
async def test_what_the_model_refuses_is_found_in_the_body(
    http: httpx.AsyncClient, pool: FakePool, error: InvalidRequest, param: str, code: str | None
) -> None:
    pool.client.script = lambda _: [error]
    assert_error(await http.post(INFILL, json=body()), 400, param=param, code=code)

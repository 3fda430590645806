"""Bodies that are no valid JSON object, too large, or not what they claim to be."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from server.api import endpoint
from server.api.openai import chat as chat_completions
from server.api.openai.conversation import chat_prompt
from server.api.openai.schemas.chat_request import ChatCompletionRequest
from server.api.openai.schemas.completions import CompletionRequest
from server.api.validation import validate
from server.core.errors import InvalidRequest
from server.http.body import decode
from tests.api.fakes import FakePool
from tests.api.wire import CHAT, assert_error, chat, chat_body

Connect = Callable[..., httpx.AsyncClient]

JSON = {"content-type": "application/json"}


def with_value(value: str | bytes) -> bytes:
    """A body whose temperature is spelt ``value``."""
    spelt = value.encode() if isinstance(value, str) else value
    return json.dumps(chat_body()).encode()[:-1] + b', "temperature": ' + spelt + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"{} x",
        b"{'a': 1}",
        with_value(b'"\xff"'),
        with_value(b'"\xed\xa0\x80"'),
        with_value('"\\ud800"'),
        with_value('"\\udc00"'),
        with_value("NaN"),
        with_value("Infinity"),
        with_value("-Infinity"),
        with_value("1e999"),
        with_value("1" * 5000),
        with_value("01"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        with_value("[" * 100_000 + "]" * 100_000),
        b"\xef\xbb\xbf\xef\xbb\xbf" + with_value("1"),
    ],
)
async def test_what_is_no_json_object_is_400(http: httpx.AsyncClient, body: bytes) -> None:
    assert_error(await http.post(CHAT, content=body, headers=JSON), 400)
    await chat(http)


async def test_of_duplicate_keys_the_last_wins(http: httpx.AsyncClient, pool: FakePool) -> None:
    body = with_value('5, "temperature": 0.5')
    assert (await http.post(CHAT, content=body, headers=JSON)).status_code == 200
    assert pool.client.requests[0].sampling.temperature == 0.5


async def test_nesting_within_a_schema_is_400_or_passed_on(http: httpx.AsyncClient) -> None:
    """The recursion limit is nobody's server error."""
    for depth in (100, 500, 900, 990, 1000, 2000):
        schema: Any = {}
        for _ in range(depth):
            schema = [schema]
        text = '{"type":"json_schema","json_schema":{"name":"x","schema":{"a":' + "[" * depth
        text += "]" * depth + "}}}"
        body = json.dumps(chat_body()).encode()[:-1] + b', "response_format": ' + text.encode()
        response = await http.post(CHAT, content=body + b"}", headers=JSON)
        assert response.status_code in {200, 400}
        if response.status_code == 400:
            assert_error(response, 400)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""]
)
async def test_another_content_type_is_415(http: httpx.AsyncClient, media_type: str) -> None:
    response = await http.post(
        CHAT, content=json.dumps(chat_body()), headers={"content-type": media_type}
    )
    assert_error(response, 415, code="unsupported_media_type")


async def test_a_byte_order_mark_is_no_part_of_the_body(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, content=b"\xef\xbb\xbf" + with_value("1"), headers=JSON)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "media_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"],
)
async def test_json_may_be_spelt_differently(http: httpx.AsyncClient, media_type: str) -> None:
    response = await http.post(
        CHAT, content=json.dumps(chat_body()), headers={"content-type": media_type}
    )
    assert response.status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, gzip"])
async def test_compressed_bodies_are_415_unread(http: httpx.AsyncClient, encoding: str) -> None:
    bomb = gzip.compress(b"0" * 10**6)
    response = await http.post(CHAT, content=bomb, headers={**JSON, "content-encoding": encoding})
    assert_error(response, 415, code="unsupported_media_type")


async def test_a_body_that_says_it_is_too_large_is_413_unread(connect: Connect) -> None:
    response = await connect(max_body_bytes=1000).post(CHAT, json=chat_body(user="x" * 1000))
    assert_error(response, 413, code="payload_too_large")


async def test_a_body_without_length_is_413_while_it_streams(connect: Connect) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b" " * 1000

    response = await connect(max_body_bytes=10_000).post(CHAT, content=endless(), headers=JSON)
    assert_error(response, 413, code="payload_too_large")
    assert sent < 20_000


async def test_a_body_that_does_not_arrive_is_408(connect: Connect) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    response = await connect(request_timeout=0.05).post(CHAT, content=slow(), headers=JSON)
    assert_error(response, 408, code="request_timeout")


@pytest.mark.parametrize(("messages", "beside"), [(9_900, True), (10, False)])
async def test_a_large_body_is_read_beside_the_event_loop(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, messages: int, beside: bool
) -> None:
    """Ten megabytes hold the interpreter for long; between the steps others get their turn."""
    loop_thread = threading.current_thread()
    threads = []

    def recorded(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            threads.append(threading.current_thread())
            return step(*arguments, **options)

        return run

    monkeypatch.setattr(endpoint, "decode", recorded(decode))
    monkeypatch.setattr(endpoint, "validate", recorded(validate))
    monkeypatch.setattr(chat_completions, "chat_prompt", recorded(chat_prompt))
    body = chat_body(messages=[{"role": "user", "content": "x" * 1000}] * messages)
    response = await http.post(CHAT, content=json.dumps(body).encode(), headers=JSON)
    assert response.status_code == 200
    assert [thread is not loop_thread for thread in threads] == [beside] * 3


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("model", [ChatCompletionRequest, CompletionRequest])
@given(data=st.data())
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_object_is_a_request_or_a_bad_one(
    model: type[ChatCompletionRequest], data: st.DataObject
) -> None:
    names = st.sampled_from(sorted(model.model_fields)) | st.text(max_size=5)
    fields = data.draw(st.dictionaries(names, values, max_size=5))
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "prompt": "x"}
    known = {name: value for name, value in body.items() if name in model.model_fields}
    with contextlib.suppress(InvalidRequest):
        validate({**known, **fields}, model)


@given(st.binary(max_size=50))
def test_any_bytes_are_an_object_or_a_bad_request(raw: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(decode(raw), dict)

"""What was loosened of a request's schemas, and what an answer violates: said in every family."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest

from server.api.looseness import listed
from server.core.errors import Locator
from server.core.events import Accepted, Delta, Event, Finished
from server.core.request import GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, usage
from tests.api.wire import CHAT, chat_body, events

Connect = Callable[..., httpx.AsyncClient]

SCHEMA = {
    "type": "object",
    "properties": {"email": {"type": "string", "pattern": "^(?!a)"}},
    "required": ["email"],
}
PATTERN = ("properties", "email", "pattern")
CALL = '<tool_call>\n{"name": "subscribe", "arguments": {"email": "%s"}}\n</tool_call>'


def loose_pool(text: str, *loosened: Locator) -> FakePool:
    def script(request: GenerationRequest) -> Iterable[Event]:
        active = bool(getattr(request.prompt, "tools", []))
        yield Accepted(id=1, prompt_tokens=5, tools_active=active, loosened=list(loosened))
        for index in range(request.n):
            yield Delta(id=1, index=index, text=text, tokens=1)
            yield Finished(id=1, index=index, reason="stop", usage=usage(1))

    return FakePool(script, reply_format=builtin_format("hermes"))


def tool_pool(email: str) -> FakePool:
    return loose_pool(CALL % email, ("tools", 0, "parameters", *PATTERN))


def content_pool(email: str) -> FakePool:
    return loose_pool(json.dumps({"email": email}), ("constraint", "schema", *PATTERN))


TOOL = {"name": "subscribe", "parameters": SCHEMA}
JSON_SCHEMA = {"name": "x", "schema": SCHEMA}
SAID = [{"role": "user", "content": "hi"}]
REQUESTS: list[tuple[str, dict[str, Any], Callable[[str], FakePool], str]] = [
    (
        CHAT,
        chat_body(tools=[{"type": "function", "function": TOOL}]),
        tool_pool,
        "tools[0].parameters.properties.email.pattern",
    ),
    (
        CHAT,
        chat_body(response_format={"type": "json_schema", "json_schema": JSON_SCHEMA}),
        content_pool,
        "response_format.json_schema.schema.properties.email.pattern",
    ),
    (
        CHAT,
        chat_body(response_format={"type": "json_object", "schema": SCHEMA}),
        content_pool,
        "response_format.schema.properties.email.pattern",
    ),
    (CHAT, chat_body(guided_json=SCHEMA), content_pool, "guided_json.properties.email.pattern"),
    (
        "/v1/responses",
        {"model": "test", "input": "hi", "tools": [{"type": "function", **TOOL}]},
        tool_pool,
        "tools[0].parameters.properties.email.pattern",
    ),
    (
        "/v1/responses",
        {
            "model": "test",
            "input": "hi",
            "text": {"format": {"type": "json_schema", **JSON_SCHEMA}},
        },
        content_pool,
        "text.format.schema.properties.email.pattern",
    ),
    (
        "/v1/messages",
        {
            "model": "test",
            "max_tokens": 9,
            "messages": SAID,
            "tools": [{"name": "subscribe", "input_schema": SCHEMA}],
        },
        tool_pool,
        "tools[0].input_schema.properties.email.pattern",
    ),
    (
        "/v1/messages",
        {
            "model": "test",
            "max_tokens": 9,
            "messages": SAID,
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        },
        content_pool,
        "output_config.format.schema.properties.email.pattern",
    ),
]


@pytest.mark.parametrize(("path", "body", "pool", "place"), REQUESTS)
async def test_an_answer_says_what_was_loosened_and_what_it_violates(
    connect: Connect,
    path: str,
    body: dict[str, Any],
    pool: Callable[[str], FakePool],
    place: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "server.api.looseness")
    async with connect(pool("bob")) as http:
        fine = await http.post(path, json=body)
    assert fine.status_code == 200
    assert fine.headers["x-dragoman-loosened"] == place
    assert "x-dragoman-violated" not in fine.headers
    assert "email.pattern" in caplog.text
    assert "violates" not in caplog.text
    async with connect(pool("ann")) as http:
        wrong = await http.post(path, json=body)
    assert wrong.headers["x-dragoman-violated"] == place
    assert "answer 0 violates" in caplog.text
    if path == CHAT:
        assert fine.json()["usage"]["loosened"] == [place]
        assert "violations" not in fine.json()["usage"]
        assert wrong.json()["usage"]["violations"] == [place]


@pytest.mark.parametrize(("path", "body", "pool", "place"), REQUESTS)
async def test_a_stream_says_it_in_its_header(
    connect: Connect,
    path: str,
    body: dict[str, Any],
    pool: Callable[[str], FakePool],
    place: str,
) -> None:
    async with connect(pool("ann")) as http:
        stream = await http.post(path, json={**body, "stream": True})
    assert stream.headers["x-dragoman-loosened"] == place


async def test_the_usage_chunk_of_a_stream_says_both(connect: Connect) -> None:
    path, body, pool, place = REQUESTS[0]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    async with connect(pool("ann")) as http:
        stream = await http.post(path, json={**body, **options})
    *_, last, _ = events(stream.text)
    told = json.loads(last)["usage"]
    assert (told["loosened"], told["violations"]) == ([place], [place])


async def test_what_is_enforced_is_not_mentioned(connect: Connect) -> None:
    async with connect(loose_pool(CALL % "ann")) as http:
        answer = await http.post(CHAT, json=REQUESTS[0][1])
    assert not {"x-dragoman-loosened", "x-dragoman-violated"} & answer.headers.keys()
    assert not {"loosened", "violations"} & answer.json()["usage"].keys()


@pytest.mark.parametrize(
    ("bound", "number", "violated"),
    [
        ({"exclusiveMaximum": 0.3}, "0.29999999999999999999", "exclusiveMaximum"),
        ({"exclusiveMaximum": "0.3"}, "0.29999999999999999999", "exclusiveMaximum"),
        ({"exclusiveMaximum": 0.3}, "0.29", None),
        ({"exclusiveMinimum": 100}, "100.00000000000000000001", "exclusiveMinimum"),
        ({"maximum": 0.3, "exclusiveMaximum": True}, "0.29999999999999999999", "exclusiveMaximum"),
        ({"maximum": 2**63 - 1}, "9223372036854775808", "maximum"),
        ({"minimum": -(2**63)}, "-9223372036854775809", "minimum"),
    ],
)
async def test_a_number_beyond_a_bound_that_no_grammar_holds_is_a_violation(
    connect: Connect, bound: dict[str, Any], number: str, violated: str | None
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number", **bound}}}
    call = f'<tool_call>\n{{"name": "f", "arguments": {{"n": {number}}}}}\n</tool_call>'
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    async with connect(loose_pool(call)) as http:
        answer = await http.post(CHAT, json=chat_body(tools=[tool]))
    place = f"tools[0].parameters.properties.n.{violated}" if violated else None
    assert answer.headers.get("x-dragoman-violated") == place
    assert "x-dragoman-loosened" not in answer.headers


def test_a_list_of_places_is_short_and_printable() -> None:
    places: list[Locator] = [("tools", n, "parameters", "ä,\n" * 9) for n in range(300)]
    value = listed(places)
    assert value.isascii()
    assert value.isprintable()
    assert len(value) < 8_000
    assert value.endswith(" more")
    assert value.startswith("tools[0].parameters.%C3%A4%2C%0A")

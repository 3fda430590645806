"""Sends requests and reads responses the way the OpenAI SDK does, strictly."""

from __future__ import annotations

import json
from typing import Any, cast

import httpx
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from server.core.event_stream import EventStreamParser

RESPONSES = "/v1/responses"

_event: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def response_body(**fields: Any) -> dict[str, Any]:
    """A small valid request."""
    return {"model": "test", "input": "hi", **fields}


async def respond(http: httpx.AsyncClient, **fields: Any) -> Response:
    """A whole response, valid in strict mode."""
    return checked((await raw(http, **fields)).json())


async def raw(http: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    """The answer of HTTP, which is 200."""
    answer = await http.post(RESPONSES, json=response_body(**fields))
    assert answer.status_code == 200, answer.text
    return answer


def checked(body: dict[str, Any]) -> Response:
    """``body`` as the SDK's type, in strict mode."""
    return Response.model_validate(body, strict=True)


async def stream(http: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    """The events of a streamed response, each valid in strict mode, and their order checked."""
    answer = await raw(http, stream=True, **fields)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return read_events(answer.content)


def read_events(content: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each valid in strict mode, and their order checked."""
    events = []
    for sent in EventStreamParser().feed(content):
        event = cast("dict[str, Any]", json.loads(sent.data))
        assert sent.type.decode() == event["type"]
        if event["type"] != "response.failed":  # the SDK's list of error codes is not ours
            parsed = _event.validate_python(event, strict=True)
            assert parsed.type == event["type"]
        events.append(event)
    check_order(events)
    return events


def check_order(events: list[dict[str, Any]]) -> None:
    """Events are numbered without gaps; items open and close one by one, and keep their ids."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last["type"] in {"response.completed", "response.incomplete", "response.failed"}
    assert {event["response"]["id"] for event in events if "response" in event} == {
        last["response"]["id"]
    }
    done: list[dict[str, Any]] = []
    open_id = None
    for event in events:
        match event["type"]:
            case "response.output_item.added":
                assert open_id is None
                open_id = event["item"]["id"]
                assert event["output_index"] == len(done)
                assert event["item"].get("status", "in_progress") == "in_progress"
            case "response.output_item.done":
                assert event["item"]["id"] == open_id
                assert event["output_index"] == len(done)
                done.append(event["item"])
                open_id = None
            case _ if "item_id" in event:
                assert event["item_id"] == open_id
                assert event["output_index"] == len(done)
    if last["type"] != "response.failed":
        assert last["response"]["output"] == done


def types(events: list[dict[str, Any]]) -> list[str]:
    """Types of ``events``, without their common prefix."""
    return [event["type"].removeprefix("response.") for event in events]

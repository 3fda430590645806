"""Sends requests and reads answers the way Anthropic's SDK does, strictly."""

from __future__ import annotations

import json
from typing import Any

import httpx
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from pydantic import TypeAdapter

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
USER = {"role": "user", "content": "hi"}
TOOL = {
    "name": "add",
    "description": "Adds.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}

_EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def body(**fields: Any) -> dict[str, Any]:
    """A small valid request."""
    return {"model": "test", "max_tokens": 100, "messages": [USER], **fields}


async def message(http: httpx.AsyncClient, **fields: Any) -> Message:
    """A whole answer, valid in strict mode."""
    response = await http.post(MESSAGES, json=body(**fields))
    assert response.status_code == 200, response.text
    return Message.model_validate_json(response.content, strict=True)


async def events(http: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream: each valid in strict mode, and in the order that clients need."""
    response = await http.post(MESSAGES, json=body(stream=True, **fields))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = parse_events(response.text)
    check_events(found)
    return found


def parse_events(text: str) -> list[dict[str, Any]]:
    """The data of each event but pings, whose type is also the event's."""
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        kind, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        if event["type"] != "ping":
            found.append(event)
    return found


def check_events(found: list[dict[str, Any]]) -> None:
    """One message; its blocks are numbered from 0, and each is closed before the next opens."""
    for event in found:
        _EVENT.validate_json(json.dumps(event), strict=True)
    kinds = [event["type"] for event in found]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    block, is_open = -1, False
    for event in found[1:-2]:
        kind = event["type"].removeprefix("content_block_")
        assert is_open == (kind != "start")
        block += kind == "start"
        is_open = kind != "stop"
        assert event["index"] == block
    assert not is_open


def deltas(found: list[dict[str, Any]], kind: str) -> str:
    """All text of one kind of delta."""
    wanted = [event["delta"] for event in found if event.get("delta", {}).get("type") == kind]
    return "".join(value for delta in wanted for name, value in delta.items() if name != "type")


def assert_error(response: httpx.Response, status: int, kind: str) -> str:
    """The answer is an error in Anthropic's shape; its message is returned."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    found = response.json()
    assert found.keys() == {"type", "error", "request_id"}
    assert found["error"].keys() == {"type", "message"}
    assert found["error"]["type"] == kind, found
    assert found["request_id"] == response.headers["request-id"]
    if kind != "request_too_large":
        ErrorResponse.model_validate(found, strict=True)
    text: str = found["error"]["message"]
    return text

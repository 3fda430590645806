"""Messages between the processes: what MessagePack has no room for is carried all the same."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from server.core.errors import InvalidRequest
from server.core.request import CacheScope, ChatPrompt, GenerationRequest, Message, TextPart, Tool
from server.worker.protocol import (
    MAX_FRAME_BYTES,
    Cancel,
    FrameBuffer,
    Generate,
    frame,
    to_worker_decoder,
)


def carried(parameters: dict[str, Any]) -> Generate:
    message = Message(role="user", content=[TextPart("hi")])
    prompt = ChatPrompt(messages=[message], tools=[Tool(name="f", parameters=parameters)])
    request = Generate(id=7, scope=CacheScope(), request=GenerationRequest(prompt=prompt))
    (payload,) = FrameBuffer().feed(frame(request))
    arrived = to_worker_decoder.decode(payload)
    assert isinstance(arrived, Generate)
    assert isinstance(arrived.request.prompt, ChatPrompt)
    assert arrived.request.prompt.messages == [message]
    return arrived


def parameters(arrived: Generate) -> Any:
    assert isinstance(arrived.request.prompt, ChatPrompt)
    return arrived.request.prompt.tools[0].parameters


def test_an_integer_of_more_than_64_bits_arrives_as_the_nearest_double() -> None:
    sent = {"maximum": 10**30, "enum": [[-(10**20)], 5, True, "x"], "minimum": -(2**63)}
    assert parameters(carried(sent)) == {
        "maximum": 1e30,
        "enum": [[-1e20], 5, True, "x"],
        "minimum": -(2**63),
    }
    assert parameters(carried({"maximum": 10**400})) == {"maximum": sys.float_info.max}
    assert isinstance(parameters(carried({"maximum": 2**64 - 1}))["maximum"], int)


def test_such_an_integer_too_deep_inside_is_refused() -> None:
    deep: Any = 10**30
    for _ in range(900):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        carried({"enum": deep})


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_messages_arrive_whole_in_pieces_of_any_size(size: int) -> None:
    sent = [Cancel(id=10**number) for number in range(12)]
    stream = b"".join(map(frame, sent))
    buffer = FrameBuffer()
    payloads = [
        payload
        for start in range(0, len(stream), size)
        for payload in buffer.feed(stream[start : start + size])
    ]
    # Decoded at last: what arrived later changes nothing of what came before.
    assert [to_worker_decoder.decode(payload) for payload in payloads] == sent


def test_a_message_over_the_limit_is_refused_by_its_length() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        FrameBuffer().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))

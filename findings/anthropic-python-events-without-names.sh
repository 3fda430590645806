#!/usr/bin/env bash
# anthropic 2.14.0 (Python): a stream whose server-sent events have no `event:` line is read as an
# empty one. The type stands in every event's data too, and the standard makes `event:` optional, yet
# `messages.create(stream=True)` then yields nothing and raises nothing: a client sees a successful
# answer without text.
#
# Seen (first run): with `event:` lines 6 events come, without them none, and no exception.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet anthropic==2.14.0

"$folder/venv/bin/python" - <<'PYTHON'
import json

import anthropic

try:
    import httpx2 as httpx
except ImportError:
    import httpx

MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
    "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 0},
}
EVENTS = [
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
     "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]


def received(named: bool) -> int:
    lines = [
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n"
        for event in EVENTS
    ]
    transport = httpx.MockTransport(
        lambda _: httpx.Response(
            200, headers={"content-type": "text/event-stream"}, content="".join(lines)
        )
    )
    client = anthropic.Anthropic(
        api_key="none", base_url="http://test", http_client=httpx.Client(transport=transport)
    )
    messages = [{"role": "user", "content": "Hello"}]
    stream = client.messages.create(model="m", max_tokens=9, messages=messages, stream=True)
    return len(list(stream))


seen = received(named=True), received(named=False)
print("events with and without names:", seen)
assert seen == (6, 0), "the behaviour has changed"
PYTHON

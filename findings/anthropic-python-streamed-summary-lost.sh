#!/usr/bin/env bash
# anthropic 2.14.0 (Python): `messages.stream` loses the summary of a `compaction` block, which a server
# sends in a `compaction_delta`. The block is there in the final message, with `content: None`, and nothing
# is raised or warned of; `messages.create` of the same answer, whole, has the summary. None is what the API
# defines for a compaction that failed: a client that sends the message back tells the server to go on
# from the whole conversation, each time. `beta.messages.stream` keeps the summary. A server that puts it into
# `content_block_start` as well loses nothing, since those that know the delta overwrite it.
#
# Seen (first run): whole "Half done.", streamed None, streamed by the beta's helper "Half done.", streamed
# with the summary in the start too "Half done.".
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

SUMMARY = "Half done."
BLOCK = {"type": "compaction", "content": SUMMARY}
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
    "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
ASKED = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}


def streamed(begun: dict) -> str:
    """The events of the message, whose block begins like this."""
    events = [
        {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": begun},
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "compaction_delta", "content": SUMMARY}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)


def client(kind: str, content: str) -> anthropic.Anthropic:
    answer = httpx.Response(200, headers={"content-type": kind}, content=content)
    transport = httpx.MockTransport(lambda _: answer)
    return anthropic.Anthropic(
        api_key="none", base_url="http://test", http_client=httpx.Client(transport=transport)
    )


def final(begun: dict, *, beta: bool) -> object:
    asking = client("text/event-stream", streamed(begun))
    messages = asking.beta.messages if beta else asking.messages
    with messages.stream(**ASKED) as stream:
        return stream.get_final_message().content[0].content


whole = client("application/json", json.dumps({**MESSAGE, "content": [BLOCK]}))
empty = {**BLOCK, "content": None}
seen = {
    "whole": whole.messages.create(**ASKED).content[0].content,
    "streamed": final(empty, beta=False),
    "streamed by the beta's helper": final(empty, beta=True),
    "streamed with the summary in the start": final(BLOCK, beta=False),
}
print(seen)
assert list(seen.values()) == [SUMMARY, None, SUMMARY, SUMMARY], "the behaviour has changed"
PYTHON

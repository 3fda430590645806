#!/usr/bin/env bash
# openai 3.54.0 (Python): the stream helper of chat completions raises where an answer ends at
# `max_tokens`, for plain text too. `client.chat.completions.stream(...)` without a `response_format` or
# tools parses nothing, yet at `finish_reason: "length"` it raises LengthFinishReasonError, which is meant for
# structured output, instead of giving the answer. `create(stream=True)` gives it. So a client that
# sets a small limit takes a server's correct answer for a failure.
#
# Seen (first run): with "stop" the final completion says "Hi", with "length" LengthFinishReasonError.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openai==3.54.0

"$folder/venv/bin/python" - <<'PYTHON'
import json

import openai

try:
    import httpx2 as httpx
except ImportError:
    import httpx


def chunk(delta: dict, reason: str | None) -> dict:
    return {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


def ended(reason: str) -> str:
    chunks = [chunk({"role": "assistant", "content": "Hi"}, None), chunk({}, reason)]
    lines = [f"data: {json.dumps(each)}\n\n" for each in chunks] + ["data: [DONE]\n\n"]
    transport = httpx.MockTransport(
        lambda _: httpx.Response(
            200, headers={"content-type": "text/event-stream"}, content="".join(lines)
        )
    )
    client = openai.OpenAI(
        api_key="none", base_url="http://test", http_client=httpx.Client(transport=transport)
    )
    messages = [{"role": "user", "content": "Hello"}]
    try:
        with client.chat.completions.stream(model="m", max_tokens=1, messages=messages) as stream:
            for _ in stream:
                pass
            return stream.get_final_completion().choices[0].message.content or ""
    except openai.LengthFinishReasonError as error:
        return type(error).__name__


seen = ended("stop"), ended("length")
print("final completions at stop and at length:", seen)
assert seen == ("Hi", "LengthFinishReasonError"), "the behaviour has changed"
PYTHON

#!/usr/bin/env bash
# openai 3.54.0 (Python): the answer of `responses.compact` is, says its type's own comment, "a list of
# all user messages, followed by a single compaction item", yet the type of its `output` has no place
# for a user's message: an answer in just that form does not validate, and `to_dict()`, with which
# clients send the items on, warns of values that it did not expect.
#
# Seen (first run): the strict check fails at `output.0`, and `to_dict()` warns once.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openai==3.54.0

"$folder/venv/bin/python" - <<'PYTHON'
import json
import warnings

import openai
from openai.types.responses import CompactedResponse
from pydantic import ValidationError

try:
    import httpx2 as httpx
except ImportError:
    import httpx

ANSWER = {
    "id": "resp_1", "object": "response.compaction", "created_at": 1,
    "output": [
        {"id": "msg_1", "type": "message", "role": "user", "status": "completed",
         "content": [{"type": "input_text", "text": "Hello"}]},
        {"id": "cmp_1", "type": "compaction", "encrypted_content": "..."},
    ],
    "usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
              "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2},
}

transport = httpx.MockTransport(lambda _: httpx.Response(200, json=ANSWER))
client = openai.OpenAI(
    api_key="none", base_url="http://test", http_client=httpx.Client(transport=transport)
)
compacted = client.responses.compact(model="m", input="Hello")
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    sent_on = compacted.output[0].to_dict()
try:
    CompactedResponse.model_validate_json(json.dumps(ANSWER), strict=True)
    valid = True
except ValidationError as error:
    valid = False
    print(error.errors()[0]["loc"])
print("valid:", valid, "warnings:", len(warned), "sent on:", sent_on)
assert not valid and warned, "the behaviour has changed"
PYTHON

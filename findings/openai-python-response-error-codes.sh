#!/usr/bin/env bash
# openai-python 3.54.0: the type of `response.error` in a failed response lists 21 codes, and
# `context_length_exceeded` is not among them. The Codex command line, by its public source, starts
# to compact a conversation just on that code. A server has to choose: with the code that agents act
# on, strict validation by the SDK's own type fails; without it, they retry in vain. (The SDK itself
# builds its objects without validation and so reads both.)
#
# Seen (first run): ResponseError refuses "context_length_exceeded" in strict mode, and takes
# "rate_limit_exceeded".
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openai==3.54.0

"$folder/venv/bin/python" - <<'PYTHON'
from openai.types.responses import ResponseError
from pydantic import ValidationError


def takes(code: str) -> bool:
    try:
        ResponseError.model_validate({"code": code, "message": "why"}, strict=True)
    except ValidationError:
        return False
    return True


seen = takes("rate_limit_exceeded"), takes("context_length_exceeded")
built = ResponseError.construct(code="context_length_exceeded", message="why")
print("rate_limit_exceeded, context_length_exceeded:", seen, "and built unchecked:", built.code)
assert seen == (True, False), "the behaviour has changed"
assert built.code == "context_length_exceeded"
PYTHON

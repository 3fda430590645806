#!/usr/bin/env bash
# openai-python 3.54.0: a file may be uploaded with `purpose="evals"` (`FilePurpose` lists it), and the
# type of the answer, `FileObject`, does not know that purpose. So a server that keeps what the client
# said cannot answer in a way that strict validation by the SDK's own type takes: it has to refuse a
# purpose that the SDK offers, or to change it. (The SDK itself builds its objects without validation.)
#
# Seen (first run): of the six purposes that `FilePurpose` lists, `FileObject` refuses "evals" alone.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openai==3.54.0

"$folder/venv/bin/python" - <<'PYTHON'
from typing import get_args

from openai.types import FileObject, FilePurpose
from pydantic import ValidationError


def takes(purpose: str) -> bool:
    file = {
        "id": "file-1",
        "object": "file",
        "bytes": 1,
        "created_at": 1,
        "filename": "a",
        "purpose": purpose,
        "status": "processed",
    }
    try:
        FileObject.model_validate(file, strict=True)
    except ValidationError:
        return False
    return True


refused = [purpose for purpose in get_args(FilePurpose) if not takes(purpose)]
print("offered:", ", ".join(get_args(FilePurpose)), "| refused in an answer:", ", ".join(refused))
assert refused == ["evals"], "the behaviour has changed"
PYTHON

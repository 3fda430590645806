"""Requests to what the description of the API leaves out, and a file that makes a whole batch."""

from __future__ import annotations

import json

from tests.fuzz.connections import Sent

_JSON = [(b"content-type", b"application/json")]
_BOUNDARY = b"a-boundary"

METRICS = Sent("GET", "/metrics", b"/metrics", [], b"")


def undescribed(model: str, ranker: str) -> list[Sent]:
    """One request to each path but that of metrics; ``model`` generates, ``ranker`` ranks."""
    paths = [
        "/",
        "/openapi.json",
        "/playground/app.js",
        "/api/version",
        "/api/tags",
        "/v1/models/{model_id}",
        "/v1/responses",
    ]
    documents = {"query": "Hi", "documents": ["Hi"], "model": ranker}
    bodies = {
        "/api/pull": {"model": model, "stream": False},
        "/reranking": documents,
        "/v1/reranking": documents,
        "/score": {"text_1": "Hi", "text_2": ["Hi"], "model": ranker},
    }
    posts = [
        Sent("POST", path, path.encode(), _JSON, json.dumps(body).encode())
        for path, body in bodies.items()
    ]
    return [Sent("GET", path, path.encode(), [], b"") for path in paths] + posts


def batch_file(model: str) -> Sent:
    """An upload whose file is a batch of one good and one bad request."""
    body = {"model": model, "prompt": "Hi", "max_tokens": 1}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": asked}
        for name, asked in (("good", body), ("bad", {**body, "max_tokens": -5}))
    ]
    parts = [
        b'content-disposition: form-data; name="purpose"\r\n\r\nbatch',
        b'content-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + b"\n".join(json.dumps(line).encode() for line in lines),
    ]
    content = b"".join(b"--%b\r\n%b\r\n" % (_BOUNDARY, part) for part in parts)
    content += b"--%b--" % _BOUNDARY
    kind = [(b"content-type", b"multipart/form-data; boundary=" + _BOUNDARY)]
    return Sent("POST", "/v1/files", b"/v1/files", kind, content)

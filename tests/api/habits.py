"""What clients really send, with today's answers: for the tests and docs/compatibility.md.

The kinds come from public reports against local servers and their clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]
_UPGRADE = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABk"}
_PREFLIGHT = {
    "origin": "https://app.example",
    "access-control-request-method": "POST",
    "access-control-request-private-network": "true",
}
_CUT = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
_TOOL = {"type": "function", "function": {"name": "a.b", "parameters": {"type": "object"}}}


@dataclass(frozen=True)
class Habit:
    """One request.

    Attributes:
        name: What is unusual about it.
        answer: What it gets, beside the status.
        status: Of the answer.
        method: GET and the like; the body is sent with POST only.
        path: Where it is sent.
        headers: Its headers.
        fields: Of the body, beside those of a small chat.
        settings: Of the server, beside the defaults.
        has: Headers that the answer has.
        says: What the body contains.
    """

    name: str
    answer: str = ""
    status: int = 200
    method: str = "POST"
    path: str = CHAT
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    has: Mapping[str, str] = field(default_factory=dict)
    says: str = ""


def _ignored(*names: str) -> dict[str, Any]:
    listed = ", ".join(names)
    return {"has": {"x-dragoman-ignored": listed}, "answer": f"`x-dragoman-ignored: {listed}`"}


def _get(name: str, path: str, answer: str = "", **expected: Any) -> Habit:
    return Habit(name, answer, method="GET", path=path, **expected)


_DOCKER = {"host": "host.docker.internal:8000"}
_SENT_ID = {"x-request-id": "0198f3a1-7c5e-7b7e"}
_FORWARDED = {
    "host": "127.0.0.1",
    "x-forwarded-host": "llm.example.com",
    "x-forwarded-proto": "https",
    "x-forwarded-prefix": "/llm",
}

HABITS = [
    Habit("the offer of HTTP/2 (`Upgrade: h2c`) with a body", "over HTTP/1.1", headers=_UPGRADE),
    _get(
        "the offer of a WebSocket",
        "/v1/responses",
        "`upgrade_required`",
        status=426,
        headers={"connection": "Upgrade", "upgrade": "websocket"},
    ),
    _get(
        "`Host: host.docker.internal`",
        "/v1/models",
        "the message names `allowed_hosts`",
        status=403,
        headers=_DOCKER,
        says="allowed_hosts",
    ),
    _get(
        "… with `allowed_hosts = host.docker.internal`",
        "/v1/models",
        headers=_DOCKER,
        settings={"allowed_hosts": ["host.docker.internal"]},
    ),
    Habit(
        "a preflight for a private network, from a listed origin",
        "`Access-Control-Allow-Private-Network: true`",
        status=204,
        method="OPTIONS",
        headers=_PREFLIGHT,
        settings={"cors_origins": ["https://app.example"]},
        has={"access-control-allow-private-network": "true"},
    ),
    Habit(
        "a form, or a body without a type, from a page of another origin",
        "the message names `cors_origins`",
        status=403,
        headers={"origin": "https://app.example", "content-type": "text/plain"},
        says="cors_origins",
    ),
    Habit(
        "U+2028 in a text that comes back",
        "escaped in the JSON",
        status=404,
        fields={"model": "a\u2028b"},
        says=r"a\\u2028b",
    ),
    Habit("`HEAD /health`", "no body", method="HEAD", path="/health"),
    Habit("`HEAD /v1/models`", "no body", method="HEAD", path="/v1/models"),
    _get("`X-Request-ID` of the client", "/v1/models", "kept", headers=_SENT_ID, has=_SENT_ID),
    _get("slashes too many, as of an address that ends in one", "/v1//models/"),
    Habit(
        "a type of JSON like `application/vnd.api+json`",
        headers={"content-type": "application/vnd.api+json"},
    ),
    _get("a path below `root_path`", "/llm/v1/models", settings={"root_path": "/llm"}),
    _get(
        "`X-Forwarded-*` of a trusted proxy",
        "/openapi.json",
        "the description has that address",
        headers=_FORWARDED,
        settings={"trusted_proxies": ["127.0.0.1"]},
        says='"url":"https://llm.example.com/llm"',
    ),
    Habit("five stop strings", fields={"stop": list("abcde")}),
    Habit("`seed: -1`", "a random seed", fields={"seed": -1}),
    Habit("`max_tokens: -1`", "no limit", fields={"max_tokens": -1}),
    Habit("`top_k: 40.0`", "40", fields={"top_k": 40.0}),
    Habit("names of other servers (`n_predict`, …)", "honoured", fields={"n_predict": 3}),
    Habit("a field that no server has", fields={"wizardry": 1}, **_ignored("wizardry")),
    Habit(
        "… with `strict_parameters`",
        "`unknown_parameter`",
        status=400,
        fields={"wizardry": 1},
        settings={"strict_parameters": True},
        says='"param":"wizardry"',
    ),
    Habit(
        "`cache_control` in a part of a message",
        fields={
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
                    ],
                }
            ]
        },
        **_ignored("messages.content.cache_control"),
    ),
    Habit(
        "arguments of a past call that were cut off",
        fields={
            "messages": [
                *HELLO,
                {"role": "assistant", "content": None, "tool_calls": [_CUT]},
                {"role": "tool", "tool_call_id": "c", "content": "1"},
            ]
        },
    ),
    Habit(
        "system messages behind others",
        fields={"messages": [*HELLO, {"role": "system", "content": "Be brief."}, *HELLO]},
    ),
    Habit("a tool's name with a dot, as in MCP", fields={"tools": [_TOOL]}),
    Habit(
        "a schema beside `json_object`",
        "applied",
        fields={"response_format": {"type": "json_object", "schema": {"type": "object"}}},
    ),
]

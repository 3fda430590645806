"""Bad inputs with their answers: one table for the tests and for docs/compatibility.md.

Each input is a whole HTTP request, sent as bytes over its own socket, so that no client library
repairs it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.server import BASE, INSTRUCT

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]
HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
CONTEXT = {INSTRUCT: 8192, BASE: 32768}


@dataclass(frozen=True)
class BadInput:
    """One request.

    Attributes:
        name: What is wrong with it.
        make: Returns the bytes to send; called late, as some are large.
        status: Of the answer.
        code: ``error.code`` of the answer; None if it is null or the answer is not an error.
        says: What the error's message must contain.
    """

    name: str
    make: Callable[[], bytes]
    status: int = 400
    code: str | None = None
    says: tuple[str, ...] = ()


def request(
    method: str = "POST",
    path: str = CHAT,
    body: bytes = b"",
    headers: bytes = HOST + JSON,
    length: int | None = None,
) -> bytes:
    """The bytes of a request that closes the connection after its answer."""
    size = len(body) if length is None else length
    head = f"{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {size}\r\n"
    return head.encode() + headers + b"\r\n" + body


def raw(name: str, body: bytes | Callable[[], bytes], status: int = 400) -> BadInput:
    """A body that is sent as it is."""

    def make() -> bytes:
        return request(body=body if isinstance(body, bytes) else body())

    return BadInput(name, make, status)


def chat(
    name: str,
    status: int = 400,
    code: str | None = None,
    /,
    says: tuple[str, ...] = (),
    **fields: Any,
) -> BadInput:
    """A valid chat except for ``fields``; a field that is `ABSENT` is left out."""

    def make() -> bytes:
        body = {"model": INSTRUCT, "messages": HELLO, "max_tokens": 2, "temperature": 0}
        return request(body=_encode(body | fields))

    return BadInput(name, make, status, code, says)


def completion(
    name: str,
    status: int = 400,
    code: str | None = None,
    /,
    says: tuple[str, ...] = (),
    **fields: Any,
) -> BadInput:
    """A valid completion except for ``fields``."""

    def make() -> bytes:
        body = {"model": INSTRUCT, "prompt": "Hello", "max_tokens": 2}
        return request(path=COMPLETIONS, body=_encode(body | fields))

    return BadInput(name, make, status, code, says)


class Late:
    """A value that is made together with the request."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


ABSENT = object()


def _encode(fields: dict[str, Any]) -> bytes:
    made = {
        name: value.make() if isinstance(value, Late) else value
        for name, value in fields.items()
        if value is not ABSENT
    }
    return json.dumps(made).encode()


def spelt(name: str, value: str) -> bytes:
    """A chat whose field ``name`` is spelt ``value``."""
    body = _encode({"model": INSTRUCT, "messages": HELLO, "max_tokens": 2})
    return body[:-1] + f', "{name}": {value}}}'.encode()


def said(content: Any, role: str = "user", **fields: Any) -> list[dict[str, Any]]:
    """A list of messages whose last has this content."""
    return [*HELLO, {"role": role, "content": content, **fields}]


def call(id_: str = "call_1") -> dict[str, Any]:
    """An assistant's message that only calls a function."""
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": id_, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(id_: str) -> dict[str, Any]:
    """The result of a call."""
    return {"role": "tool", "tool_call_id": id_, "content": "1"}


MALFORMED_HTTP = request(headers=HOST + JSON + b"Transfer-Encoding: chunked\r\n", body=b"0\r\n\r\n")
UNKNOWN = (404, "model_not_found")
TOO_LONG = (400, "context_length_exceeded")

TRANSPORT: dict[int, list[BadInput]] = {
    1: [raw("malformed JSON", b'{"model": ')],
    2: [raw("an empty body", b"")],
    3: [raw(f"{body.decode()} as the body", body) for body in (b"[]", b"5", b'"a"', b"null")],
    4: [raw("duplicate keys: the last wins", spelt("max_tokens", '0, "max_tokens": 1'), 200)],
    5: [raw("invalid UTF-8", spelt("user", '"?"').replace(b"?", b"\xff"))],
    6: [raw("a lone surrogate", spelt("user", r'"\ud800"'))],
    7: [raw(f"{value}", spelt("temperature", value)) for value in ("NaN", "Infinity", "-Infinity")],
    8: [raw("1e999", spelt("temperature", "1e999"))],
    9: [raw("an integer of 5,000 digits", spelt("seed", "9" * 5_000))],
    10: [raw("nesting 100,000 deep", lambda: b"[" * 100_000 + b"]" * 100_000)],
    15: [BadInput("Content-Length with Transfer-Encoding", lambda: MALFORMED_HTTP)],
    16: [
        BadInput(
            "text/plain as Content-Type",
            lambda: request(body=b"{}", headers=HOST + b"Content-Type: text/plain\r\n"),
            415,
            "unsupported_media_type",
        )
    ],
    17: [
        BadInput(
            "a gzip bomb",
            lambda: request(
                body=gzip.compress(bytes(10_000_000)),
                headers=HOST + JSON + b"Content-Encoding: gzip\r\n",
            ),
            415,
            "unsupported_media_type",
        )
    ],
    14: [
        BadInput(
            "a flood of headers",
            lambda: request(headers=HOST + JSON + b"X-Flood: a\r\n" * 5_000),
            431,
            "headers_too_large",
        )
    ],
    18: [BadInput("a wrong method", lambda: request("GET"), 405, "method_not_allowed")],
    19: [BadInput("an unknown path", lambda: request(path="/v1/nothing"), 404, "not_found")],
    21: [
        BadInput(
            "a foreign Host header on a loopback bind",
            lambda: request("GET", "/v1/models", headers=b"Host: evil.example\r\n"),
            403,
            "forbidden",
        )
    ],
}

FIELDS: dict[int, list[BadInput]] = {
    23: [chat("no model", model=ABSENT)],
    24: [chat("an unknown model", *UNKNOWN, model="no-such-model")],
    25: [
        chat("a path as model", *UNKNOWN, model="../../etc/passwd"),
        chat("NUL in the model's name", *UNKNOWN, model="a\0b"),
        chat("a model's name of 10 KB", *UNKNOWN, model="x" * 10_240),
        BadInput(
            "a path after /v1/models/",
            lambda: request("GET", "/v1/models/..%2f..%2fetc%2fpasswd"),
            *UNKNOWN,
        ),
    ],
    26: [
        chat("no messages", messages=ABSENT),
        chat("an empty list of messages", messages=[]),
        chat("a string as messages", messages="Hello"),
    ],
    27: [chat("an unknown role", messages=said("a", "wizard"))],
    28: [chat("a number as content", messages=said(5))],
    29: [
        chat("null as a user's content", messages=said(None)),
        chat(
            "null as the content of an assistant that calls",
            200,
            messages=[*HELLO, call(), result("call_1")],
        ),
    ],
    30: [chat("an empty user message", 200, messages=[{"role": "user", "content": ""}])],
    31: [
        chat("an orphan tool message", 400, "invalid_conversation", messages=[*HELLO, result("a")])
    ],
    32: [
        chat(
            "the result of another call",
            400,
            "invalid_conversation",
            messages=[*HELLO, call(), result("call_2")],
        )
    ],
    33: [chat("100,000 messages", messages=Late(lambda: HELLO * 100_000))],
    34: [chat("an unknown content part", messages=said([{"type": "smell"}]))],
    35: [chat(f"temperature {v!r}", temperature=v) for v in (-1, 2.1, "hot", True)],
    36: [chat(f"top_p {v}", top_p=v) for v in (-0.1, 1.1)],
    37: [
        *(chat(f"frequency_penalty {v}", frequency_penalty=v) for v in (-2.1, 2.1)),
        *(chat(f"presence_penalty {v}", presence_penalty=v) for v in (-2.1, 2.1)),
    ],
    38: [chat(f"max_tokens {v}", max_tokens=v) for v in (-3, 0, 1.5)],
    39: [chat("max_tokens 2^31: bounded by the context", 200, max_tokens=2**31)],
    40: [chat("both token limits, different", max_tokens=1, max_completion_tokens=2)],
    41: [chat(f"n {v}", n=v) for v in (0, 129, 10**9)],
    42: [
        chat("five stop strings", 200, stop=list("abcde")),
        chat("257 stop strings", stop=["a"] * 257),
    ],
    43: [
        chat("an empty stop string", 200, stop=""),
        chat("a stop string of 1 MB", stop="x" * 2**20),
    ],
    44: [
        chat("top_logprobs 21", logprobs=True, top_logprobs=21),
        chat("top_logprobs without logprobs", top_logprobs=1),
    ],
    45: [chat(f"a bias of {v}", logit_bias={"5": v}) for v in (-101, 101)],
    46: [
        chat("a bias beyond the vocabulary", logit_bias={"262144": 1}),
        chat("a bias of a word", logit_bias={"cat": 1}),
    ],
    47: [
        chat(
            "every token banned", 200, logit_bias=Late(lambda: {str(i): -100 for i in range(49152)})
        )
    ],
    48: [chat("seed 2^64", seed=2**64)],
    49: [chat("stream as a word", stream="yes")],
    50: [chat("stream_options without stream", stream_options={"include_usage": True})],
    51: [chat("an unknown field, named in `x-dragoman-ignored`", 200, tempreature=1)],
    52: [
        completion("a token beyond the vocabulary", prompt=[49152]),
        completion("a negative token", prompt=[-1]),
        completion("a token of 70 bits", prompt=[2**70]),
        completion("no tokens", prompt=[[]]),
        completion(
            "tokens beyond the context", *TOO_LONG, says=("8192", "9000"), prompt=[5] * 9_000
        ),
    ],
    53: [
        chat(
            f"a conversation beyond the context of {CONTEXT[model]} tokens",
            *TOO_LONG,
            says=(str(CONTEXT[model]),),
            model=model,
            messages=Late(lambda: said("All work and no play. " * 6_000)),
        )
        for model in (INSTRUCT, BASE)
    ],
}

# Rows that are more than one request, each a test named after its row; what happens, in words.
SCENARIOS: dict[int, list[tuple[str, str]]] = {
    11: [("a body of 100 MB", "413 `payload_too_large` while it streams")],
    12: [
        ("a body shorter than its Content-Length", "408 `request_timeout`"),
        ("a body longer than its Content-Length", "400"),
    ],
    13: [("a slow body", "408 `request_timeout`")],
    20: [("no key, or a wrong one", "401 `invalid_api_key`, on unknown paths too")],
    22: [("500 half-open connections", "others are served")],
    70: [("an exception of the chat template", "400 `invalid_conversation`, with its words")],
    71: [("a client that leaves, in the queue or in the answer", "everything is freed at once")],
    72: [("a client that does not read", "buffers are bounded; it is dropped after 30 s")],
    73: [("a full queue", "429 `queue_full` with `Retry-After`")],
    74: [("no KV cells left", "a request is set back and resumed; everyone gets 200")],
    75: [("SIGTERM during streams", "10 s to finish, then an error event and no `[DONE]`")],
    76: [("a second SIGTERM", "the server ends at once")],
    77: [("kill -9 of a worker", "an error event within 1 s, no `[DONE]`; it is respawned")],
    78: [("SIGSTOP of a worker", "the watchdog replaces it after 10 s of silence")],
    79: [("a worker that crashes again and again", "503 with the reason, for 30 s")],
    80: [("too little memory to load a model", "503 with the reason")],
    81: [("an empty, truncated or foreign model file", "503 with the reason")],
    82: [("a model file that claims 2^63 keys", "503 with the reason")],
    83: [("a tensor past the end of its file", "503 with the reason")],
    84: [("a missing part of a split model", "503 that names the part")],
    85: [("an unknown architecture", "503 that names it")],
    86: [("a deleted model file", "the loaded model goes on; loading it again is 503, then 404")],
    87: [("a replaced model file", "loaded anew once its model is idle; nothing cached remains")],
    88: [("a model file cut short while in use", "503 until it is whole")],
    89: [("a full disk", "it serves; `pull` says what it needs before it fetches")],
    90: [("a corrupt cache entry", "as if it were not there")],
    91: [("the clock jumps", "nothing: durations are monotonic")],
    92: [("no file descriptors left", "503 for what needs some, until there are some")],
    93: [("a read-only file system", "it serves")],
    94: [("the port is in use", "exit code 1, and the message says so")],
    95: [("threads and forks", "workers are spawned, never forked")],
}

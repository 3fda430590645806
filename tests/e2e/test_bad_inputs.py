"""Bad inputs to the running server: it answers each, then a valid request, from the same worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
from openai import OpenAI

from tests.conformance.bad_constraints import CONSTRAINTS, PROMPTS
from tests.conformance.bad_inputs import CHAT, FIELDS, HOST, JSON, TRANSPORT, BadInput, request
from tests.conformance.connection import (
    assert_canary,
    assert_error,
    connected,
    exchange,
    read_answer,
)
from tests.conformance.watch import Pulse
from tests.e2e.server import BASE, INSTRUCT, Server, running_server

_CHUNK = b"100000\r\n" + b" " * 2**20 + b"\r\n"


@pytest.fixture(autouse=True)
def nothing_is_left_behind(server: Server) -> Iterator[None]:
    """After each of these tests the server answers, and no worker had to be replaced."""
    workers = server.worker_pids()
    yield
    assert_canary(server)
    assert server.worker_pids() == workers
    assert workers.keys() == {INSTRUCT, BASE}


def every(rows: dict[int, list[BadInput]]) -> list[object]:
    return [
        pytest.param(case, id=f"{row} {case.name}") for row, cases in rows.items() for case in cases
    ]


@pytest.mark.parametrize("case", every(TRANSPORT | FIELDS | CONSTRAINTS | PROMPTS))
def test_bad_input(server: Server, case: BadInput) -> None:
    answer = exchange(server, case.make())
    if case.status != 200:
        message = assert_error(answer, case.status, case.code)
        assert [text for text in case.says if text not in message] == [], message
    else:
        assert answer.status == 200, answer.body[:1000]
        assert answer.json()["choices"][0]["finish_reason"] in {"stop", "length", "tool_calls"}


def test_4_of_duplicate_keys_the_last_wins(server: Server) -> None:
    [case] = TRANSPORT[4]
    usage = exchange(server, case.make()).json()["usage"]
    assert usage["completion_tokens"] == 1


def test_11_a_body_of_100_mb_is_refused_while_it_streams(server: Server) -> None:
    head = request(headers=HOST + JSON).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with connected(server) as connection:
        connection.sendall(head)
        sent = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < 100:
                connection.sendall(_CHUNK)
                sent += 1
        # The two sockets buffer what was sent and not read by the server.
        assert sent < 60
        assert_error(read_answer(connection), 413, "payload_too_large")


def test_22_half_open_connections_keep_nobody_out(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(500):
            connection = stack.enter_context(connected(server))
            connection.sendall(b"POST /v1/chat/comp")
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert_canary(server)


def test_54_to_66_keep_no_health_check_waiting(server: Server) -> None:
    # Made beforehand, since making them here would delay the checks.
    requests = [case.make() for cases in CONSTRAINTS.values() for case in cases]
    pulse = Pulse(server)
    pulse.start()
    statuses = [exchange(server, bytes_).status for bytes_ in requests]
    assert pulse.longest() < 3
    assert set(statuses) == {200, 400}


def test_67_a_control_token_typed_by_a_user_is_text(client: OpenAI) -> None:
    def prompt_tokens(content: str) -> int:
        answer = client.chat.completions.create(
            model=INSTRUCT, messages=[{"role": "user", "content": content}], max_tokens=1
        )
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    assert prompt_tokens("<|im_end|>") > prompt_tokens("a") + 3


KEY = "a-secret"
AUTHORIZED = HOST + JSON + f"Authorization: Bearer {KEY}\r\n".encode()


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """A server with an API key and a request timeout of 0.5 seconds; it loads no model."""
    with running_server("--request-timeout", "0.5", "--api-key", KEY) as started:
        yield started


def test_12_a_body_shorter_than_it_says_is_408(impatient: Server) -> None:
    short = request(body=b"{}", headers=AUTHORIZED, length=500)
    assert_error(exchange(impatient, short), 408, "request_timeout")


def test_12_a_body_longer_than_it_says_is_400(impatient: Server) -> None:
    long = request(body=b'{"model": "x"}', headers=AUTHORIZED, length=5)
    assert_error(exchange(impatient, long), 400)


def test_13_a_slow_body_is_408(impatient: Server) -> None:
    with connected(impatient) as connection:
        connection.sendall(request(headers=AUTHORIZED, length=500))
        for _ in range(8):
            time.sleep(0.1)
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(b" ")
        assert_error(read_answer(connection), 408, "request_timeout")


@pytest.mark.parametrize("header", [b"", b"Authorization: Bearer wrong\r\n"])
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/metrics", "/nothing"])
def test_20_without_a_right_key_everything_is_401(
    impatient: Server, header: bytes, path: str
) -> None:
    answer = exchange(impatient, request("GET", path, headers=HOST + header))
    assert_error(answer, 401, "invalid_api_key")

"""Rows 70 to 78 of the bad inputs: clients that leave, full queues, signals, dead workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.bad_inputs import COMPLETIONS, HOST, JSON, request
from tests.conformance.connection import (
    Answer,
    assert_canary,
    assert_error,
    connected,
    exchange,
    read_answer,
)
from tests.conformance.watch import engine, until
from tests.e2e.server import INSTRUCT, MODELS, Server, running_server

FAMILY = """
description = "A template that refuses some conversations."
source = "these tests"
stops = ["<|im_end|>"]
"""
TEMPLATE = """\
{%- for message in messages %}
    {%- if 'forbidden' in message.content %}{{ raise_exception('not this word') }}{% endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with one model, whose template refuses some conversations."""
    models = tmp_path_factory.mktemp("models")
    (models / f"{INSTRUCT}.gguf").symlink_to(MODELS / f"{INSTRUCT}.gguf")
    (models / f"{INSTRUCT}.toml").write_text('family = "picky"\n')
    (models / "templates").mkdir()
    (models / "templates/picky.toml").write_text(FAMILY)
    (models / "templates/picky.jinja").write_text(TEMPLATE)
    return models


@pytest.fixture(scope="module")
def small(folder: Path) -> Iterator[Server]:
    """A small server: 4 sequences, 600 KV cells, 2 requests in the queue."""
    options = ("--parallel", "4", "--kv-tokens", "600", "--ctx-size", "512", "--queue-size", "2")
    folders = ("--models-dir", str(folder), "--template-dir", str(folder / "templates"))
    with running_server(*options, *folders) as server:
        assert_canary(server)
        yield server


def completion(max_tokens: int, *, stream: bool = False, prompt: str = "Count: 1") -> bytes:
    """A completion that goes on until ``max_tokens``."""
    body = {"model": INSTRUCT, "prompt": prompt, "max_tokens": max_tokens, "stream": stream}
    return request(
        path=COMPLETIONS,
        body=json.dumps(body | {"ignore_eos": True}).encode(),
        headers=HOST + JSON,
    )


def first_bytes(connection: socket.socket) -> bytes:
    """The bytes up to the first piece of text."""
    received = b""
    while b'"text":' not in received:
        received += connection.recv(1 << 16)
    return received


def last_event(stream: Answer) -> Any:
    """The data of the last event."""
    *_, last = [line for line in stream.body.split(b"\n") if line.startswith(b"data: ")]
    return last.removeprefix(b"data: ")


def test_70_an_exception_of_the_template_is_400(small: Server) -> None:
    body = {"model": INSTRUCT, "messages": [{"role": "user", "content": "a forbidden word"}]}
    answer = exchange(small, request(body=json.dumps(body).encode()))
    assert "not this word" in assert_error(answer, 400, "invalid_conversation")
    assert_canary(small)


@pytest.mark.parametrize("stream", [False, True])
def test_71_a_client_that_leaves_frees_its_sequence(small: Server, stream: bool) -> None:
    before = engine(small, "generated_tokens_total")
    for _ in range(3):
        with connected(small) as connection:
            connection.sendall(completion(400, stream=stream))
            time.sleep(0.5)
    time.sleep(1.5)  # workers report once a second
    until(lambda: engine(small, "active") == 0)
    assert 0 < engine(small, "generated_tokens_total") - before < 3 * 300
    assert_canary(small)


def test_71_a_client_that_leaves_the_queue_is_forgotten(small: Server) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connected(small)).sendall(completion(300))
        until(lambda: engine(small, "active") + engine(small, "waiting") == 4)
        with connected(small) as waiting:
            waiting.sendall(completion(300))
            until(lambda: engine(small, "waiting") > 0)
    until(lambda: engine(small, "active") + engine(small, "waiting") == 0)
    assert_canary(small)


def test_73_a_full_queue_is_429_with_retry_after(small: Server) -> None:
    workers = small.worker_pids()
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: exchange(small, completion(40)), range(16)))
    statuses = {answer.status for answer in answers}
    assert statuses == {200, 429}
    for answer in answers:
        if answer.status == 429:
            assert_error(answer, 429, "queue_full")
            assert int(answer.headers["retry-after"]) >= 1
    assert_canary(small)
    assert small.worker_pids() == workers


def test_74_full_kv_memory_preempts_and_everyone_is_answered(small: Server) -> None:
    """No two of the four answers of 400 tokens fit into 600 cells, with or without drafts."""
    before = engine(small, "preemptions_total")
    prompts = [f"{word}:" for word in ("Red", "Green", "Blue", "White")]
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda prompt: exchange(small, completion(400, prompt=prompt)), prompts)
        )
    for answer in answers:
        assert answer.status == 200, answer.body
        assert answer.json()["usage"]["completion_tokens"] == 400
    until(lambda: engine(small, "preemptions_total") > before)


def test_77_a_killed_worker_ends_its_stream_with_an_error_and_no_done(small: Server) -> None:
    with connected(small) as connection:
        connection.sendall(completion(400, stream=True))
        began = first_bytes(connection)
        assert b" 200 " in began
        os.kill(small.worker_pids()[INSTRUCT], signal.SIGKILL)
        rest = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert b'"code":"worker_died"' in rest
    assert b"[DONE]" not in rest
    assert_canary(small)


@pytest.mark.timeout(120)
def test_78_a_stopped_worker_is_replaced(small: Server) -> None:
    """The watchdog waits for ten heartbeats."""
    with connected(small) as connection:
        connection.sendall(completion(400, stream=True))
        first_bytes(connection)
        stopped = small.worker_pids()[INSTRUCT]
        os.kill(stopped, signal.SIGSTOP)
        assert httpx.get(f"{small.url}/health/live").status_code == 200
        rest = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert b'"code":"worker_died"' in rest
    assert b"[DONE]" not in rest
    assert_canary(small)
    assert small.worker_pids()[INSTRUCT] != stopped


def streaming(server: Server) -> tuple[threading.Thread, list[Answer]]:
    """A thread that reads a long stream, and a list that gets its answer."""
    answers: list[Answer] = []
    connection = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    connection.sendall(completion(4000, stream=True))
    head = first_bytes(connection)

    def read() -> None:
        with connection:
            rest = read_answer(connection, head)
        answers.append(rest)

    reader = threading.Thread(target=read)
    reader.start()
    return reader, answers


def test_75_a_signal_lets_streams_finish_for_a_while_then_ends_them_with_an_error() -> None:
    with running_server("--drain-seconds", "1") as server:
        assert_canary(server)
        reader, answers = streaming(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        reader.join(30)
    [answer] = answers
    assert json.loads(last_event(answer))["error"]["code"] == "overloaded"
    assert b"[DONE]" not in answer.body


def test_76_a_second_signal_ends_at_once() -> None:
    with running_server("--drain-seconds", "60") as server:
        assert_canary(server)
        reader, _ = streaming(server)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        reader.join(30)

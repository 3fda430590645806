"""Readers that are slow, gone, or many: the server stays responsive, and its memory flat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conformance.bad_inputs import CHAT, HOST, JSON, request
from tests.conformance.connection import assert_canary, connected
from tests.conformance.watch import Pulse, descriptors, engine, resident_bytes, until
from tests.e2e.server import INSTRUCT, Server, running_server

STREAMS = 200
LONGEST_SECONDS = 3.0


@pytest.fixture(scope="module")
def busy() -> Iterator[Server]:
    """A server with a loaded model, for tests that keep it busy."""
    with running_server("--log-level", "warning", "--parallel", str(STREAMS)) as server:
        assert_canary(server)
        yield server


def endless(max_tokens: int) -> bytes:
    """A streamed chat that goes on until it is cut."""
    body = {
        "model": INSTRUCT,
        "messages": [{"role": "user", "content": "Count."}],
        "stream": True,
        "max_tokens": max_tokens,
        "ignore_eos": True,
    }
    return request(path=CHAT, body=json.dumps(body).encode(), headers=HOST + JSON)


def test_two_hundred_streams_and_a_prompt_answer(busy: Server) -> None:
    """Health checks are answered meanwhile, and memory is as before afterwards."""
    descriptors_before = descriptors(busy)
    memory_before = resident_bytes(busy)
    with ExitStack() as stack:
        streams = [stack.enter_context(connected(busy)) for _ in range(STREAMS)]
        for stream in streams:
            stream.sendall(endless(16))
        until(lambda: engine(busy, "active") > 0)
        pulse = Pulse(busy)
        pulse.start()
        received = [stream.makefile("rb").read() for stream in streams]
        longest = pulse.longest()
    assert all(answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") for answer in received)
    assert longest < LONGEST_SECONDS
    until(lambda: descriptors(busy) <= descriptors_before + 2)
    assert resident_bytes(busy) < memory_before + 100 * 2**20


def test_readers_that_vanish_free_everything(busy: Server) -> None:
    assert_canary(busy)
    until(lambda: engine(busy, "active") == 0)
    descriptors_before = descriptors(busy)
    for _ in range(3):
        with ExitStack() as stack:
            for _ in range(30):
                stack.enter_context(connected(busy)).sendall(endless(4000))
            until(lambda: engine(busy, "active") > 0)
        # The clients left, some while they were decoded, some in the queue.
        until(lambda: engine(busy, "active") + engine(busy, "waiting") == 0)
    until(lambda: descriptors(busy) <= descriptors_before + 2)
    assert_canary(busy)


def test_72_a_slow_reader_costs_little_and_holds_up_nobody(busy: Server) -> None:
    """The client reads nothing: buffers stay bounded, and other clients are served."""
    memory_before = resident_bytes(busy)
    with connected(busy, receive_buffer=4096) as stream:
        stream.sendall(endless(300))
        until(lambda: engine(busy, "active") > 0)
        assert_canary(busy)
        until(lambda: engine(busy, "active") == 0, 100)
        assert resident_bytes(busy) < memory_before + 30 * 2**20

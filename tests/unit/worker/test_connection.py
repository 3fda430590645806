"""The worker's end of the socket: messages arrive whole, however large and in whatever pieces."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from server.core.errors import DragomanError, InvalidRequest
from server.core.request import CacheScope, ChatPrompt, GenerationRequest, ImagePart, Message
from server.core.tokens import Tokens
from server.worker import protocol
from server.worker.protocol import (
    Cancel,
    FrameBuffer,
    Generate,
    Shutdown,
    Tokenized,
    ToWorker,
    frame,
    from_worker_decoder,
)
from server.worker.serve.connection import Connection

LARGE = Generate(
    id=1,
    scope=CacheScope(),
    request=GenerationRequest(
        prompt=ChatPrompt(messages=[Message(role="user", content=[ImagePart(bytes(3 << 20))])])
    ),
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Connection]]:
    """The socket of the API process, and the worker's end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, Connection(theirs)


def test_messages_of_any_size_arrive_whole(ends: tuple[socket.socket, Connection]) -> None:
    ours, worker = ends
    sent: list[ToWorker] = [Cancel(id=7), LARGE, Cancel(id=1), Shutdown()]
    sending = threading.Thread(target=ours.sendall, args=(b"".join(map(frame, sent)),))
    sending.start()
    assert [worker.receive() for _ in sent] == sent
    sending.join()


@pytest.mark.parametrize("arrived", [0, 3, 4, 1000])
def test_a_socket_that_closes_in_a_message_ends_the_worker(
    ends: tuple[socket.socket, Connection], arrived: int
) -> None:
    ours, worker = ends
    ours.sendall(frame(LARGE)[:arrived])
    ours.close()
    assert worker.receive() == Shutdown()


def test_an_answer_too_long_for_the_api_process_is_a_refusal(
    ends: tuple[socket.socket, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, worker = ends
    monkeypatch.setattr(protocol, "MAX_FRAME_BYTES", 1 << 10)
    worker.send(Tokenized(id=3, tokens=Tokens(ids=[1] * 2000)))
    (payload,) = FrameBuffer().feed(ours.recv(1 << 12))
    answer = from_worker_decoder.decode(payload)
    assert isinstance(answer, Tokenized)
    assert answer.id == 3
    assert answer.error is not None
    assert isinstance(DragomanError.of(answer.error), InvalidRequest)

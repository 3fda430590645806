"""The worker's end of the socket: messages arrive whole, however large and in whatever pieces."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from server.core.request import CacheScope, ChatPrompt, GenerationRequest, ImagePart, Message
from server.worker.protocol import Cancel, Generate, Shutdown, ToWorker, frame
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

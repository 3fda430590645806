"""The file of an image goes to a worker once, and requests arrive whole all the same."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from server.core.request import (
    CacheScope,
    ChatPrompt,
    GenerationRequest,
    ImagePart,
    Message,
    TextPart,
    TextPrompt,
)
from server.worker.protocol import DropFiles, Generate, HoldFile, frame
from server.worker.serve.connection import Connection
from server.worker.supervise.held_files import HeldFiles

CAT, DOG = ImagePart(b"cat" * 100), ImagePart(b"dog" * 100, "low")


class Worker:
    """A worker's end of a socket, and what it is sent: the types of messages."""

    def __init__(self, ours: socket.socket, connection: Connection) -> None:
        self._ours = ours
        self._connection = connection
        self.sent: list[type] = []

    def given(self, held: HeldFiles, request: Generate) -> object:
        """What the worker handles when ``request`` is sent to it."""
        self.sent = []
        for message in held.messages(request):
            self.sent.append(type(message))
            self._ours.sendall(frame(message))
        return self._connection.receive()


@pytest.fixture
def worker() -> Iterator[Worker]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Worker(ours, Connection(theirs))


def asking(*images: ImagePart, key: str = "") -> Generate:
    turns = [Message(role="user", content=[TextPart("look"), image]) for image in images]
    request = GenerationRequest(prompt=ChatPrompt(messages=[*turns, Message(role="user")]))
    return Generate(id=1, scope=CacheScope(api_key=key), request=request)


def test_an_image_that_comes_again_is_not_sent_again(worker: Worker) -> None:
    held = HeldFiles()
    for request, sent in (
        (asking(CAT), [HoldFile, Generate]),
        (asking(CAT, DOG, CAT), [HoldFile, Generate]),
        (asking(DOG, CAT), [Generate]),
        (asking(ImagePart(CAT.data, "low")), [Generate]),
    ):
        assert worker.given(held, request) == request
        assert worker.sent == sent


def test_a_request_without_images_is_sent_as_it_is(worker: Worker) -> None:
    text = GenerationRequest(prompt=TextPrompt(text="a"))
    for request in (asking(), Generate(id=1, scope=CacheScope(), request=text)):
        assert worker.given(HeldFiles(), request) == request
        assert worker.sent == [Generate]


def test_no_key_s_image_arrives_sooner_since_another_one_sent_it(worker: Worker) -> None:
    held = HeldFiles()
    for key in ("one", "other"):
        request = asking(CAT, key=key)
        assert worker.given(held, request) == request
        assert worker.sent == [HoldFile, Generate]


def test_files_used_least_recently_make_room_for_others(worker: Worker) -> None:
    held = HeldFiles(most_bytes=2 * len(CAT.data))
    bird = ImagePart(b"bird" * 75)
    worker.given(held, asking(CAT))
    worker.given(held, asking(DOG))
    worker.given(held, asking(CAT))
    for request, sent in (
        (asking(bird), [HoldFile, Generate, DropFiles]),
        (asking(CAT), [Generate]),
        (asking(DOG), [HoldFile, Generate, DropFiles]),
    ):
        assert worker.given(held, request) == request
        assert worker.sent == sent


def test_a_request_with_more_than_is_held_arrives_whole(worker: Worker) -> None:
    held = HeldFiles(most_bytes=10)
    request = asking(CAT, DOG, CAT)
    assert worker.given(held, request) == request
    assert worker.sent == [HoldFile, HoldFile, Generate]
    assert worker.given(held, request) == request
    assert worker.sent == [Generate], "those of the last request stay"


def test_what_could_not_be_sent_is_not_taken_for_held(worker: Worker) -> None:
    held = HeldFiles()
    next(held.messages(asking(CAT)))  # the connection was lost there
    assert worker.given(held, asking(CAT)) == asking(CAT)
    assert worker.sent == [HoldFile, Generate]

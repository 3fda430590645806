"""The worker's end of the socket to the API process."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable

from msgspec.structs import replace

from server.core.request import ChatPrompt, with_images
from server.worker.protocol import (
    LENGTH_BYTES,
    DropFiles,
    FromWorker,
    Generate,
    HoldFile,
    Load,
    Request,
    Shutdown,
    ToWorker,
    answer_frame,
    payload_bytes,
    to_worker_decoder,
)

Send = Callable[[FromWorker], None]


class Connection:
    """Sends and receives messages. Any thread may send, one thread receives.

    Attributes:
        is_read: Whether a thread receives all the time, and so ends the process when the API
            process is gone; until then, sending does.
    """

    def __init__(self, endpoint: socket.socket) -> None:
        self.is_read = False
        self._socket = endpoint
        self._sending = threading.Lock()
        self._arrivals = select.poll()
        self._arrivals.register(endpoint, select.POLLIN)
        self._files: dict[int, bytes] = {}

    def send(self, message: FromWorker) -> None:
        """Send ``message``, waiting while the API process does not keep up.

        The caller's own thread sends. A separate thread would get the interpreter only once the
        next step has begun, and the API process would then take a core from that step.
        """
        data = answer_frame(message)
        with self._sending:
            try:
                self._socket.sendall(data)
            except OSError:  # the API process is gone
                if not self.is_read:
                    os._exit(0)

    def receive(self) -> Load | Request | Shutdown:
        """The next message that others handle; `Shutdown` when the socket is closed.

        Requests have the files of their images again.
        """
        while True:
            match self._next():
                case HoldFile(number=number, data=data):
                    self._files[number] = data
                case DropFiles(numbers=numbers):
                    for number in numbers:
                        del self._files[number]
                case Generate(held=held) as message if held:
                    return self._with_files(message)
                case message:
                    return message

    def _with_files(self, message: Generate) -> Generate:
        prompt = message.request.prompt
        assert isinstance(prompt, ChatPrompt)
        files = iter([self._files[number] for number in message.held])
        whole = with_images(prompt, lambda image: replace(image, data=next(files)))
        return replace(message, request=replace(message.request, prompt=whole), held=[])

    def _next(self) -> ToWorker:
        length = self._read(LENGTH_BYTES)
        payload = length and self._read(payload_bytes(length))
        return to_worker_decoder.decode(payload) if payload else Shutdown()

    def _read(self, count: int) -> bytearray | None:
        """The next ``count`` bytes, an image's megabytes not copied; None if there are no more."""
        data = bytearray(count)
        rest = memoryview(data)
        while rest:
            # Blocking in recv() would also wake this thread whenever the peer drains what we sent.
            self._arrivals.poll()
            try:
                received = self._socket.recv_into(rest)
            except OSError:
                received = 0  # it left messages unread
            if not received:
                return None
            rest = rest[received:]
        return data

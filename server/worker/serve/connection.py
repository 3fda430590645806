"""The worker's end of the socket to the API process."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable

from server.worker.protocol import (
    FrameBuffer,
    FromWorker,
    Shutdown,
    ToWorker,
    frame,
    to_worker_decoder,
)

Send = Callable[[FromWorker], None]

_READ_BYTES = 1 << 20


class Connection:
    """Sends and receives messages. Any thread may send, one thread receives.

    Attributes:
        is_read: Whether a thread receives all the time, and so ends the process when the API
            process is gone; until then, sending does.
    """

    def __init__(self, endpoint: socket.socket) -> None:
        self.is_read = False
        self._socket = endpoint
        self._buffer = FrameBuffer()
        self._payloads: list[memoryview] = []
        self._sending = threading.Lock()
        self._arrivals = select.poll()
        self._arrivals.register(endpoint, select.POLLIN)

    def send(self, message: FromWorker) -> None:
        """Send ``message``, waiting while the API process does not keep up.

        The caller's own thread sends. A separate thread would get the interpreter only once the
        next step has begun, and the API process would then take a core from that step.
        """
        data = frame(message)
        with self._sending:
            try:
                self._socket.sendall(data)
            except OSError:  # the API process is gone
                if not self.is_read:
                    os._exit(0)

    def receive(self) -> ToWorker:
        """The next message; `Shutdown` when the socket is closed."""
        while not self._payloads:
            # Blocking in recv() would also wake this thread whenever the peer drains what we sent.
            self._arrivals.poll()
            try:
                data = self._socket.recv(_READ_BYTES)
            except OSError:
                data = b""  # it left messages unread
            if not data:
                return Shutdown()
            self._payloads = self._buffer.feed(data)
        return to_worker_decoder.decode(self._payloads.pop(0))

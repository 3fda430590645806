"""The worker's end of the socket to the API process."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable

from server.worker.protocol import (
    LENGTH_BYTES,
    FromWorker,
    Shutdown,
    ToWorker,
    frame,
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

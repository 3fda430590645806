"""Tells the service manager how the server does: the protocol of sd_notify(3), without a library.

systemd starts a service of ``Type=notify`` with a socket in ``NOTIFY_SOCKET``; with a watchdog it
also sets ``WATCHDOG_USEC``, the microseconds within which it wants a sign of life.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

# A sign of life comes twice as often as it must, as sd_watchdog_enabled(3) recommends. Without a
# watchdog this is how soon the end of the server is told; a choice.
_POLL_SECONDS = 0.5


class Served(Protocol):
    """What is told about: whether the server accepts connections, and whether it ends."""

    listening: asyncio.Event
    should_exit: bool


class ServiceManager:
    """The service manager of ``environment``; every message is dropped where there is none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        # The variable may have been inherited from a process that is watched itself.
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "") if mine else ""
        self._watchdog = int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0

    async def follow(self, server: Served) -> None:
        """Tell that the server is ready, that it lives, and that it ends, until cancelled."""
        if not self._address:
            return
        await server.listening.wait()
        self._send("READY=1")
        pause = min(self._watchdog / 2 or _POLL_SECONDS, _POLL_SECONDS)
        try:
            while not server.should_exit:
                await self._live(pause)
        finally:
            self._send("STOPPING=1")
        while True:
            await self._live(pause)

    async def _live(self, seconds: float) -> None:
        if self._watchdog:
            self._send("WATCHDOG=1")
        await asyncio.sleep(seconds)

    def _send(self, message: str) -> None:
        # A name that begins with @ is in Linux' abstract namespace.
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            # A manager that does not read may not hold the server up.
            client.setblocking(False)
            client.sendto(message.encode(), address)

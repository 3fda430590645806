"""Fetching what a request names by its URL, from allowed hosts alone.

A server that fetches what its clients name can be led to what only it can reach: services on the
same machine, devices in the network, metadata of the cloud. So a host's name is resolved once, all
its addresses are checked, and the connection goes to one of these; so with each redirect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import h11

from server.http.hosts import normal_host

_PORTS = {"http": 80, "https": 443}
_MOST_REDIRECTS = 3
_MOST_HEADER_BYTES = 32 << 10
_CHUNK_BYTES = 64 << 10
_REDIRECTS = {301, 302, 303, 307, 308}
_SAFE = "/%:@!$&'()*+,;=~?"
"""Characters that stay as they are in a path and its query (RFC 3986)."""

_PORT = re.compile(r":\d+$")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FetchError(Exception):
    """Nothing was fetched; the message says why, for the client."""


class Target(NamedTuple):
    """A URL taken apart: ``host`` in one spelling, ``path`` with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


Connect = Callable[[Target, str], Awaitable[Streams]]
"""Connects to an address of a target, with TLS if its scheme has it."""

TakeRoom = Callable[[int], None]
"""Told of so many more bytes before they are kept; it raises where there is no room for them."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, in the system's order."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


async def connect(target: Target, address: str) -> Streams:
    """A connection to ``address``; the certificate must be that of the target's host."""
    secure = target.scheme == "https"
    return await asyncio.open_connection(
        address,
        target.port,
        ssl=_certificates() if secure else None,
        server_hostname=target.host if secure else None,
    )


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches from ``hosts``: names and addresses, ``*.example.com`` for all below one, ``*``.

    A host without a port stands for ports 80 and 443. Addresses that are not public are asked only
    where they are themselves among ``hosts``, whatever name led to them. ``seconds`` is the most
    that one fetch takes, redirects included.
    """

    hosts: Sequence[str]
    seconds: float = 10.0
    resolve: Resolve = resolve
    connect: Connect = connect

    async def fetch(self, url: str, *, take_room: TakeRoom) -> bytes:
        """What ``url`` names.

        Raises:
            FetchError: The host is not allowed or not public, answers with anything but 200 or a
                redirect, or too late.
            Exception: What ``take_room`` raises.
        """
        try:
            async with asyncio.timeout(self.seconds):
                for _ in range(_MOST_REDIRECTS + 1):
                    target = self._target(url)
                    answer = await self._get(target, take_room)
                    if isinstance(answer, bytes):
                        return answer
                    url = urljoin(url, answer.location)
        except TimeoutError:
            raise FetchError(f"it was not fetched within {self.seconds:g} s") from None
        except (OSError, h11.ProtocolError, UnicodeError) as error:
            raise FetchError(f"it cannot be fetched: {type(error).__name__}") from error
        raise FetchError(f"it was redirected more than {_MOST_REDIRECTS} times")

    def _target(self, url: str) -> Target:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise FetchError("its URL is malformed") from None
        scheme = parts.scheme.lower()
        if scheme not in _PORTS or not parts.hostname or parts.username is not None:
            raise FetchError("only http and https URLs without a user are fetched")
        host = normal_host(parts.hostname)
        path = quote(parts.path or "/", safe=_SAFE)
        if parts.query:
            path += "?" + quote(parts.query, safe=_SAFE)
        target = Target(scheme, host.strip("[]"), port or _PORTS[scheme], path)
        if not self._allows(target):
            raise FetchError(f"images are not fetched from {target.header[:100]!r}")
        return target

    def _allows(self, target: Target) -> bool:
        hosts = frozenset(map(normal_host, self.hosts))
        host = normal_host(f"[{target.host}]" if ":" in target.host else target.host)
        _, *above = host.split(".")
        names = {host, "*", *("*." + ".".join(above[i:]) for i in range(len(above)))}
        if target.port in _PORTS.values() and not hosts.isdisjoint(names):
            return True
        return not hosts.isdisjoint(f"{name}:{target.port}" for name in names)

    async def _get(self, target: Target, take_room: TakeRoom) -> bytes | _Redirect:
        reader, writer = await self._connected(target)
        try:
            return await _exchange(reader, writer, target, take_room)
        finally:
            writer.close()

    async def _connected(self, target: Target) -> Streams:
        """A connection to the first address that takes one; all must be allowed."""
        addresses = await self.resolve(target.host, target.port)
        listed = {_PORT.sub("", normal_host(host)) for host in self.hosts}
        for address in addresses:
            if not _is_public(address) and normal_host(address) not in listed:
                raise FetchError(
                    f"{target.host[:100]!r} is in a network that is not public, and image_hosts "
                    "does not have its address"
                )
        failure = OSError("no address")
        for address in addresses:
            try:
                return await self.connect(target, address)
            except OSError as error:
                failure = error
        raise failure


class _Redirect(NamedTuple):
    location: str


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target, take_room: TakeRoom
) -> bytes | _Redirect:
    """Ask for the target, and read the answer."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEADER_BYTES)
    headers = [
        ("Host", target.header),
        ("User-Agent", "dragoman"),
        ("Accept", "image/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    asked = h11.Request(method="GET", target=target.path, headers=headers)
    writer.write((connection.send(asked) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK_BYTES))
        elif isinstance(event, h11.Response):
            if event.status_code in _REDIRECTS:
                return _Redirect(_location(event))
            if event.status_code != HTTPStatus.OK:
                raise FetchError(f"{target.host[:100]!r} answers {event.status_code}")
        elif isinstance(event, h11.Data):
            take_room(len(event.data))
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)


def _location(response: h11.Response) -> str:
    found = next((value for name, value in response.headers if name == b"location"), b"")
    return found.decode("latin-1")


def _is_public(text: str) -> bool:
    """Whether an address is one of the internet's; one that holds another is where that is."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    inner = address.ipv4_mapped
    if address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return _is_public(str(inner))
    tunnelled = address.sixtofour is not None or address.teredo is not None
    return address in _GLOBAL_UNICAST and address.is_global and not tunnelled

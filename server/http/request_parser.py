"""Parsing requests: httptools, for a server that speaks HTTP/1.1 and nothing else."""

from __future__ import annotations

from array import array
from typing import Protocol

import httptools

_CONNECT = b"CONNECT"


class Owner(Protocol):
    """Whose callbacks a parser calls; it has what was parsed of the current request."""

    parser: RequestParser
    url: bytes
    headers: list[tuple[bytes, bytes]]


class RequestParser(httptools.HttpRequestParser):
    """Passes over offers of another protocol (``Connection: Upgrade``, RFC 9110, section 7.8).

    httptools ends its work behind the head of such a request, and its body would be lost. So
    another parser, the owner's from then on, gets the head once more without the offer, and the
    rest as it is. The header ``Upgrade`` stays, for paths that decline it in words.
    """

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        self._owner = owner
        # As uvicorn has it: a request that says it is the last is answered, whatever follows it.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    @property
    def offered(self) -> bool:
        """Whether the head that is complete offers another protocol, and will come once more."""
        return bool(self.should_upgrade()) and self.get_method() != _CONNECT

    def feed_data(self, data: bytes | bytearray | memoryview[int] | array[int]) -> None:
        """Parse; raises what httptools raises, but HttpParserUpgrade for CONNECT only."""
        parser = self
        while True:
            try:
                super(RequestParser, parser).feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if not parser.offered:
                    raise
                data = parser._head_without_offer() + bytes(data)[offer.args[0] :]
                parser = parser._owner.parser = RequestParser(parser._owner)
            else:
                return

    def _head_without_offer(self) -> bytes:
        version = self.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.get_method(), self._owner.url, version)]
        for name, value in self._owner.headers:
            kept = _without_upgrade(value) if name == b"connection" else value
            lines.append(name + b": " + kept)
        return b"\r\n".join([*lines, b"", b""])


def _without_upgrade(connection: bytes) -> bytes:
    options = [option.strip() for option in connection.split(b",")]
    return b", ".join(option for option in options if option.lower() != b"upgrade")

"""Behind a reverse proxy: where the client is, and under which address it found the server."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# Key in the scope of a request: the address under which the client found the server, without a
# slash at the end.
BASE = "dragoman.base"

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
_SLASHES = re.compile("/{2,}")
_SCHEME = re.compile("https?")
_HOST = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")


class ProxyMiddleware:
    """Takes ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Prefix`` from trusted proxies.

    Args:
        app: The application below.
        trusted: Addresses and networks of the proxies; ``*`` trusts any.
        root_path: The path under which the server is found. Proxies may keep it in the paths of
            requests or leave it out.

    ``scope["client"]`` becomes the address that asked the first trusted proxy, ``scope["path"]``
    loses the prefix and spare slashes, and ``scope[BASE]`` is the address that the client knows.
    What a header says counts for no decision about access: the Host header that arrived is checked,
    not the forwarded.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[str], root_path: str) -> None:
        self._app = app
        self._anyone = "*" in trusted
        self._networks = [ipaddress.ip_network(each) for each in trusted if each != "*"]
        self._root_path = root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            prefix, scheme, host = self._root_path, scope["scheme"], headers.get("host", "")
            # A peer at a Unix socket has no address; it is a process of this machine.
            client = scope.get("client") or ("127.0.0.1", 0)
            if self._is_trusted(client[0]):
                scope["client"] = (self._asker(headers, client[0]), 0)
                prefix = _last(headers, "x-forwarded-prefix", _PREFIX).rstrip("/") or prefix
                scheme = _last(headers, "x-forwarded-proto", _SCHEME) or scheme
                host = _last(headers, "x-forwarded-host", _HOST) or host
            scope[BASE] = f"{scheme}://{host}{prefix}"
            if prefix and scope["path"] == prefix:
                # The page's links are relative to a folder.
                await RedirectResponse(f"{prefix}/")(scope, receive, send)
                return
            path = scope["path"]
            if path.startswith(f"{prefix}/"):
                path = path.removeprefix(prefix)
            scope["path"] = _without_spare_slashes(path)
        await self._app(scope, receive, send)

    def _asker(self, headers: Headers, peer: str) -> str:
        """The nearest address that is no proxy's, or the farthest where all are."""
        chain = [peer]
        for value in reversed(headers.getlist("x-forwarded-for")):
            chain += reversed([_address(each) for each in value.split(",")])
        for address in chain:
            if not self._is_trusted(address):
                return address if _is_address(address) else peer
            peer = address
        return peer

    def _is_trusted(self, address: str) -> bool:
        if not (self._anyone or self._networks) or not _is_address(address):
            return False
        found = ipaddress.ip_address(address)
        mapped = getattr(found, "ipv4_mapped", None) or found
        return self._anyone or any(mapped in network for network in self._networks)


def _without_spare_slashes(path: str) -> str:
    """``path`` without the slashes that clients add where they join it to an address."""
    single = _SLASHES.sub("/", path)
    return single.rstrip("/") or single


def _last(headers: Headers, name: str, form: re.Pattern[str]) -> str:
    """The value that the nearest proxy put in, if it is well-formed, else nothing."""
    values = [part.strip() for value in headers.getlist(name) for part in value.split(",")]
    return values[-1] if values and form.fullmatch(values[-1]) else ""


def _address(forwarded: str) -> str:
    """An address of ``X-Forwarded-For`` without the port that some proxies add."""
    text = forwarded.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

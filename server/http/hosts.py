"""Host headers: which names this server answers to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.http.errors import Forbidden
from server.http.middleware import ErrorResponder

# A name or an IPv4 address, or an IPv6 address in brackets; then perhaps a port.
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>\d*))?")


class HostMiddleware:
    """Refuses Host headers of other names than this machine's and the ``allowed`` ones.

    A web page may point its own name at 127.0.0.1 (DNS rebinding); its Host header gives it away.
    An allowed name is met at any port unless it states one; ``*.example.com`` means all names below
    example.com, and ``*`` all names there are.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str], respond: ErrorResponder) -> None:
        self._app = app
        self._allowed = frozenset(map(normal_host, allowed))
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and "*" not in self._allowed:
            hosts = Headers(scope=scope).getlist("host")
            foreign = next((host for host in hosts if not self._answers_to(host)), None)
            if foreign is not None:
                error = Forbidden(
                    f"This server does not answer to the name {foreign[:100]!r}, only to names of "
                    "this machine and those in the setting allowed_hosts "
                    "(--allowed-host, DRAGOMAN_ALLOWED_HOSTS)."
                )
                await self._respond(error, path=scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _answers_to(self, host: str) -> bool:
        parts = _HOST.fullmatch(host)
        if parts is None:
            return False
        name = normal_host(f"[{parts['v6']}]" if parts["v6"] else parts["name"])
        if _is_local(name) or not self._allowed.isdisjoint({name, f"{name}:{parts['port']}"}):
            return True
        _, *above = name.split(".")
        return any("*." + ".".join(above[i:]) in self._allowed for i in range(len(above)))


def normal_host(host: str) -> str:
    """``host`` in one spelling: lower case, no dot at the end, IPv6 addresses at their shortest."""
    parts = _HOST.fullmatch(host)
    v6 = host if parts is None else parts["v6"]
    port = f":{parts['port']}" if parts is not None and parts["port"] else ""
    if v6:
        try:
            return f"[{ipaddress.IPv6Address(v6)}]{port}"
        except ValueError:
            return host
    assert parts is not None
    return parts["name"].lower().removesuffix(".") + port


def _is_local(name: str) -> bool:
    """Whether a normal name is one of the loopback interface."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False

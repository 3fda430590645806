"""The heads of HTTP messages from one hop to the next (RFC 9110, section 7.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.cluster.front_only import ATTEMPTS_HEADER, ELSEWHERE_HEADER, KEY_HEADER
from server.core.ids import request_id
from server.http.errors import SPOKEN_PROTOCOL, UpgradeRequired, status_of
from server.http.proxies import BASE

_OF_ONE_HOP = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# A message cannot do without these, whatever its Connection header lists.
_OF_ALL_HOPS = frozenset({b"content-length", b"content-type", b"host"})
# The front knows better, and clients must not tell the replica otherwise.
_STATED_BY_THE_FRONT = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-request-id",
        ATTEMPTS_HEADER,
        KEY_HEADER,
    }
)
# uvicorn adds its own of these; the third is between replica and front.
_NOT_FOR_CLIENTS = frozenset({b"date", b"server", ELSEWHERE_HEADER})


def request_head(
    scope: dict[str, Any], key: str, *, length: int | None, attempts: Sequence[str] = ()
) -> bytes:
    """The head of a request as the replica gets it.

    Args:
        scope: That of the request.
        key: The key of the cluster.
        length: Bytes of the body where it is complete; None: its length is as the client has it.
        attempts: Names of the attempts at it, if its answer is stored.
    """
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    lines = [scope["method"].encode() + b" " + scope["raw_path"] + query + b" HTTP/1.1"]
    left_out = _of_one_hop(scope["headers"]) | _STATED_BY_THE_FRONT
    if length is not None:
        left_out |= {b"content-length"}
        lines.append(b"content-length: %d" % length)
    elif not any(name == b"content-length" for name, _ in scope["headers"]):
        lines.append(b"transfer-encoding: chunked")
    lines += [name + b": " + value for name, value in scope["headers"] if name not in left_out]
    scheme, _, rest = scope[BASE].partition("://")
    host, slash, prefix = rest.partition("/")
    stated = {
        KEY_HEADER: key,
        b"x-forwarded-for": scope["client"][0] if scope.get("client") else "127.0.0.1",
        b"x-forwarded-host": host,
        b"x-forwarded-proto": scheme,
        b"x-request-id": request_id.get(),
    }
    if slash:
        stated[b"x-forwarded-prefix"] = slash + prefix
    if (b"upgrade", b"websocket") in ((name, value.lower()) for name, value in scope["headers"]):
        # The replica refuses it, in the way that sends its client to POST at once.
        stated |= {b"connection": "close, upgrade", b"upgrade": "websocket"}
    if attempts:
        stated[ATTEMPTS_HEADER] = ",".join(attempts)
    lines += [name + b": " + value.encode("latin-1") for name, value in stated.items()]
    return b"\r\n".join([*lines, b"", b""])


def answer_headers(
    status: int, headers: Sequence[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """The headers of a replica's answer that are for the client."""
    left_out = _of_one_hop(headers) | _NOT_FOR_CLIENTS
    kept = [(name, value) for name, value in headers if name not in left_out]
    if status == status_of(UpgradeRequired):
        # It holds for this hop as well.
        kept += [(name.encode(), value.encode()) for name, value in SPOKEN_PROTOCOL.items()]
    return kept


def _of_one_hop(headers: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The headers that end here, among them those that the Connection header lists."""
    lists = [value for name, value in headers if name == b"connection"]
    listed = {part.strip().lower() for value in lists for part in value.split(b",")}
    return _OF_ONE_HOP | (listed - _OF_ALL_HOPS)

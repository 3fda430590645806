"""Takes the port before any model is loaded, so that a port in use is reported at once."""

from __future__ import annotations

import errno
import os
import socket

from server.cli.console import CommandError

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `CommandError` with the reason if the port cannot be taken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(
            address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::"
        )
    except socket.gaierror as error:
        raise CommandError(f"--host: {host!r} is not an address of this machine") from error
    except OSError as error:
        raise CommandError(_reason(host, port, error)) from error


def _reason(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} on {host} is in use, perhaps by another dragoman; "
                "stop it or choose another port with --port"
            )
        case errno.EACCES:
            return f"this user may not listen on port {port}; choose one above 1023"
        case errno.EADDRNOTAVAIL:
            return f"--host: {host!r} is not an address of this machine"
        case number:
            return f"cannot listen on {host} port {port}: {os.strerror(number or 0)}"

"""Takes the port before any model is loaded, so that a taken one costs nobody a wait."""

from __future__ import annotations

import errno
import os
import socket

from server.cli.console import CommandError

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `CommandError` saying why there can be none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(
            address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::"
        )
    except socket.gaierror as error:
        raise CommandError(f"--host: {host!r} is no address of this machine") from error
    except OSError as error:
        raise CommandError(_reason(host, port, error)) from error


def _reason(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} on {host} is in use, perhaps by another dragoman; "
                "stop that or choose another port with --port"
            )
        case errno.EACCES:
            return f"port {port} needs more rights than this user has; choose one above 1023"
        case errno.EADDRNOTAVAIL:
            return f"--host: {host!r} is no address of this machine"
        case number:
            return f"cannot listen on {host} port {port}: {os.strerror(number or 0)}"

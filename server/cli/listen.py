"""Takes the port before any model is loaded, so that a port in use is reported at once."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import NamedTuple

from server.cli.console import CommandError

_BACKLOG = 2048
# Who may write to the socket may use the server: its user and group.
_SOCKET_MODE = 0o660


class Names(NamedTuple):
    """What a host and a port are set by, for messages."""

    host: str = "--host"
    port: str = "--port"


_OF_SERVE = Names()


def listen(host: str, port: int, names: Names = _OF_SERVE) -> socket.socket:
    """A listening socket. Raises `CommandError` with the reason if the port cannot be taken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(
            address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::"
        )
    except socket.gaierror as error:
        raise CommandError(f"{names.host}: {host!r} is not an address of this machine") from error
    except OSError as error:
        raise CommandError(_reason(host, port, error, names)) from error


def listen_at(path: Path) -> socket.socket:
    """A listening Unix socket. Raises `CommandError` with the reason if there can be none.

    One that a server left behind is replaced; its user and group may use the new one.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    listener.close()
                    raise CommandError(f"{path} is in use, perhaps by another dragoman")
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        listener.bind(str(path))
        path.chmod(_SOCKET_MODE)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = "the path is too long" if error.errno is None else os.strerror(error.errno)
        raise CommandError(f"cannot listen on the socket {path}: {reason}") from error
    return listener


def _reason(host: str, port: int, error: OSError, names: Names) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} on {host} is in use, perhaps by another dragoman; "
                f"stop it or choose another port with {names.port}"
            )
        case errno.EACCES:
            return f"this user may not listen on port {port}; choose one above 1023"
        case errno.EADDRNOTAVAIL:
            return f"{names.host}: {host!r} is not an address of this machine"
        case number:
            return f"cannot listen on {host} port {port}: {os.strerror(number or 0)}"

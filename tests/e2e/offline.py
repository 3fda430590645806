"""Serves and asks, watched: `python -m tests.e2e.offline FOLDER [--namespace]`, for `test_offline`.

Of the server and its workers, Python notes its calls in FOLDER/calls, and strace, where there is
one, theirs of the system in FOLDER/trace.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import httpx

from tests.conformance.connection import assert_canary
from tests.e2e.server import INSTRUCT, Server, running_server

_SET_INTERFACE_FLAGS = 0x8914
_UP = 1
# Python imports a module of the name sitecustomize by itself, wherever on PYTHONPATH it lies.
_HOOK = r"""
import os, sys

def note(event, arguments):
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        write(f"{event} {arguments[0].family.name} {arguments[1]!r}")
    elif event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}:
        write(f"{event} {arguments[0]!r}")

def write(line):
    with open(os.environ["NOTED_CALLS"], "a") as file:
        file.write(line + "\n")

sys.addaudithook(note)
write(f"watching {' '.join(sys.orig_argv)}")
"""


def noting(folder: Path) -> dict[str, str]:
    """The environment in which Python notes calls in ``folder``."""
    (folder / "sitecustomize.py").write_text(_HOOK)
    return {"PYTHONPATH": str(folder), "NOTED_CALLS": str(folder / "calls")}


def tracing(folder: Path) -> list[str]:
    """The command under which calls of the system are noted, in ``folder``.

    The tracer is no parent of what it traces, so signals reach that as ever.
    """
    if not works("strace", "-o", os.devnull, "true"):
        return []
    trace = str(folder / "trace")
    return ["strace", "--daemonize", "-f", "--seccomp-bpf", "-e", "trace=%network", "-o", trace]


def works(*command: str) -> bool:
    """Whether there is such a command, and it may do what it is for."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def bring_up_loopback() -> None:
    """A new network namespace has one interface, and it is down."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SET_INTERFACE_FLAGS, struct.pack("16sH22x", b"lo", _UP))


def ask_everything(server: Server) -> None:
    """Once each of what clients want."""
    assert_canary(server)
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    schema = {"type": "json_schema", "json_schema": {"name": "any", "schema": {"type": "object"}}}
    for path, body in (
        ("chat/completions", chat),
        ("chat/completions", {**chat, "response_format": schema}),
        ("embeddings", {"input": "Hello"}),
    ):
        answer = httpx.post(f"{server.url}/v1/{path}", json={"model": INSTRUCT, **body}, timeout=60)
        assert answer.status_code == 200, answer.text
    for path in ("/", "/v1/models", "/metrics"):
        assert httpx.get(server.url + path).status_code == 200


def main(folder: Path, *, namespace: bool) -> None:
    """Start a server, ask it, end it; ``namespace`` says that we are in a new one."""
    if namespace:
        bring_up_loopback()
    with running_server(prefix=tracing(folder), **noting(folder)) as server:
        ask_everything(server)
    assert server.process.returncode == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), namespace="--namespace" in sys.argv)

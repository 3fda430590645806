"""Watches a server that answers: `python -m tests.e2e.offline FOLDER [--namespace]`.

For `test_offline`. FOLDER/report.json tells the network interfaces, the answers and the exit code
of the server. The Python of the server and its workers logs network calls to FOLDER/calls, and
strace, where there is one, logs their system calls to FOLDER/trace.
"""

from __future__ import annotations

import fcntl
import json
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
# Python imports a module named sitecustomize from PYTHONPATH at its start.
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
    """The environment that makes Python log network calls to ``folder``."""
    (folder / "sitecustomize.py").write_text(_HOOK)
    return {"PYTHONPATH": str(folder), "NOTED_CALLS": str(folder / "calls")}


def tracing(folder: Path) -> list[str]:
    """The command prefix that logs network system calls to ``folder``.

    The tracer is not the parent of the traced process, so signals reach that process directly.
    """
    if not works("strace", "-o", os.devnull, "true"):
        return []
    trace = str(folder / "trace")
    return ["strace", "--daemonize", "-f", "--seccomp-bpf", "-e", "trace=%network", "-o", trace]


def works(*command: str) -> bool:
    """Whether the command exists and succeeds."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def bring_up_loopback() -> None:
    """A new network namespace has one interface, and it is down."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SET_INTERFACE_FLAGS, struct.pack("16sH22x", b"lo", _UP))


def ask_everything(server: Server) -> list[tuple[str, int]]:
    """Asks once for everything that clients ask for; the paths and the status of each answer."""
    assert_canary(server)
    statuses = []
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    schema = {"type": "json_schema", "json_schema": {"name": "any", "schema": {"type": "object"}}}
    for path, body in (
        ("chat/completions", chat),
        ("chat/completions", {**chat, "response_format": schema}),
        ("embeddings", {"input": "Hello"}),
    ):
        answer = httpx.post(f"{server.url}/v1/{path}", json={"model": INSTRUCT, **body}, timeout=60)
        statuses.append((path, answer.status_code))
    pages = ("/", "/v1/models", "/metrics")
    return statuses + [(path, httpx.get(server.url + path).status_code) for path in pages]


def main(folder: Path, *, namespace: bool) -> None:
    """Start a server, ask it, end it; ``namespace``: this runs in a new network namespace."""
    if namespace:
        bring_up_loopback()
    with running_server(prefix=tracing(folder), **noting(folder)) as server:
        statuses = ask_everything(server)
    report = {
        "interfaces": [name for _, name in socket.if_nameindex()],
        "statuses": statuses,
        "exit": server.process.returncode,
    }
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), namespace="--namespace" in sys.argv)

"""Runs servers as processes, waits until they answer, and measures their memory."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from server.benchmark.target import Target
from server.benchmark.timed_client import Answer, Endpoint
from tests.bytecode import keep_bytecode
from tests.e2e.server import free_port

_START_SECONDS = 120
_POLL_SECONDS = 0.05
_END_SECONDS = 30


class Server(NamedTuple):
    """A server and its arguments; ``binary`` gets ``arguments`` with a model and a port filled in.

    ``kv_tokens``: the KV cells that the arguments give it.
    """

    name: str
    binary: Path
    arguments: tuple[str, ...]
    kv_tokens: int

    def command(self, model: str, port: str) -> list[str]:
        """The arguments for ``model``, listening on ``port``."""
        return [argument.format(model=model, port=port) for argument in self.arguments]

    def shown(self) -> str:
        """The command for readers, without the folders of this machine."""
        return " ".join([self.binary.name, *self.command("MODEL.gguf", "PORT")])


class Started(NamedTuple):
    """A server that answers; ``cold_start`` are the seconds from its start to a first token."""

    target: Target
    cold_start: float
    pid: int


def dragoman(name: str, *extra: str, kv_tokens: int, context: int = 8192) -> Server:
    """This checkout's server; one request may use up to ``context`` of the cells."""
    cells, most = str(kv_tokens), str(min(context, kv_tokens))
    arguments = ("serve", "{model}", "--port", "{port}")
    sizes = ("--kv-tokens", cells, "--ctx-size", most)
    binary = Path(sys.executable).with_name("dragoman")
    return Server(name, binary, (*arguments, *sizes, *extra), kv_tokens)


def llama_server(name: str, binary: Path, *extra: str, kv_tokens: int) -> Server:
    """The server of llama.cpp."""
    arguments = ("-m", "{model}", "--port", "{port}", "-c", str(kv_tokens))
    return Server(name, binary, (*arguments, *extra), kv_tokens)


@contextmanager
def running(server: Server, model: Path) -> Iterator[Started]:
    """``server`` with ``model``, after its first answer; the user's settings have no effect."""
    keep_bytecode()
    port = free_port()
    with TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(server.binary), *server.command(str(model.resolve()), str(port))],
            cwd=folder,
            env=_environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            target = Target(
                endpoint=Endpoint(f"http://127.0.0.1:{port}"),
                model=model.stem,
                kv_tokens=server.kv_tokens,
            )
            answer = asyncio.run(_first_answer(target, process))
            if answer is None:
                log.seek(0)
                output = log.read().decode("utf-8", "replace")[-2000:]
                raise RuntimeError(f"{server.shown()} did not start:\n{output}")
            yield Started(target, answer.started + (answer.first or 0) - started, process.pid)
        finally:
            _end(process)


async def _first_answer(target: Target, process: subprocess.Popen[bytes]) -> Answer | None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        answer = await target.ask([{"role": "user", "content": "Hello"}], 4, ignore_eos=True)
        if answer.error is None:
            return answer
        await asyncio.sleep(_POLL_SECONDS)
    return None


def _environment(folder: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DRAGOMAN_", "LLAMA_"))
    }
    # Nothing of one run may help the next.
    return inherited | {
        "XDG_CONFIG_HOME": folder,
        "DRAGOMAN_PREFIX_DISK": "0",
        "DRAGOMAN_STORE_URL": f"sqlite:///{folder}/store.db",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def resident_bytes(pid: int) -> int | None:
    """Memory of a process and its descendants, shared pages divided among their users (PSS).

    None if the system does not provide it (macOS).
    """
    try:
        return sum(_proportional_bytes(member) for member in [pid, *_descendants(pid)])
    except OSError:
        return None


def _proportional_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            # The command's name, in parentheses, may contain anything.
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [*children.get(pid, [])]
    for child in found:
        found += children.get(child, [])
    return found


@contextmanager
def busy_neighbour(seconds: float) -> Iterator[None]:
    """Another process that keeps one core busy, for at most ``seconds``."""
    loop = f"import time; end = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    process = subprocess.Popen([sys.executable, "-c", loop])
    try:
        yield
    finally:
        process.kill()
        process.wait()

"""The tiers of the tests, and the server that tests with real models share.

Every test belongs to one tier: `fast` needs no other process, no socket and no model file,
`process` does or takes long, `model` needs the real models. A mark on the test or its file decides,
else the folder does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.bytecode import keep_bytecode

if TYPE_CHECKING:
    from openai import OpenAI

    from tests.e2e.server import Server

_TIERS = {"fast", "process", "model"}
_FOLDERS = {
    "api": "fast",
    "browser": "model",
    "cluster": "process",
    "conformance": "model",
    "e2e": "model",
    "fuzz": "model",
    "unit": "fast",
}
_SLOW_EVENTS = {"os.fork", "os.posix_spawn", "socket.bind", "subprocess.Popen"}


def pytest_configure(config: pytest.Config) -> None:
    """Compile the server once for all processes that tests start."""
    if not hasattr(config, "workerinput"):
        keep_bytecode()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort tests into tiers. Raises `pytest.UsageError` for a test in none or in several."""
    wrong = []
    for item in items:
        tiers = {mark.name for mark in item.iter_markers()} & _TIERS
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if not tiers and folder in _FOLDERS:
            item.add_marker(_FOLDERS[folder])
        elif len(tiers) != 1:
            wrong.append(f"{item.nodeid}: {', '.join(sorted(tiers)) or 'none'}")
    if wrong:
        raise pytest.UsageError("tests without exactly one tier:\n" + "\n".join(wrong))


_fast_test: str | None = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tell `_keep_fast` which test runs."""
    global _fast_test  # noqa: PLW0603 an audit hook is given no state
    _fast_test = item.nodeid if item.get_closest_marker("fast") else None
    try:
        return (yield)
    finally:
        _fast_test = None


def _keep_fast(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook that lets no test of the tier `fast` start a process or listen on a port."""
    if event not in _SLOW_EVENTS or _fast_test is None:
        return
    if isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX:
        return
    raise AssertionError(f"{_fast_test} is marked fast, but does this: {event}")


sys.addaudithook(_keep_fast)

# A job that a script starts in the background ignores SIGINT, and so do the servers that it starts,
# which tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server with both real models, loaded."""
    # Imported here, as unit tests do without them and should start at once.
    from tests.e2e.server import BASE, INSTRUCT, MODELS, running_server

    for model in (INSTRUCT, BASE):
        if not (MODELS / f"{model}.gguf").exists():
            pytest.fail(f"{model}.gguf is not in {MODELS}: run `make models`")
    with running_server() as started:
        with started.client() as client:
            for model in (INSTRUCT, BASE):
                client.completions.create(model=model, prompt="Hello", max_tokens=1)
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    """The SDK's client of that server."""
    with server.client() as client:
        yield client


# What servers and tests store goes when the tests are over.
_data = TemporaryDirectory(ignore_cleanup_errors=True)
os.environ["XDG_DATA_HOME"] = _data.name

# In CI the same examples every time, however long they take; at a desk new ones. `make fuzz` looks
# further.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

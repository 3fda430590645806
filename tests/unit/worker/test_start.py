"""What a worker imports before it has a model gives way to models that are in use."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue

import pytest

from server.worker.serve import start

_PART = """
import os, threading
PRIORITY = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
THREAD = threading.current_thread().name
"""


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes modules that note who imported them and how, and then do something more."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, more: str = "") -> str:
        (tmp_path / f"{name}.py").write_text(_PART + more)
        return name

    return make


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def importer_of(name: str) -> str:
    thread: str = sys.modules.pop(name).THREAD
    return thread


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own there")
def test_what_is_imported_before_the_first_message_gives_way(part: Callable[..., str]) -> None:
    parts = [part("gentle_1"), part("gentle_2")]
    read, write = os.pipe()
    done = part("gentle_3", f"os.write({write}, b'1')")
    own = priority()
    start.import_parts([*parts, done], until=lambda: len(os.read(read, 1)))
    assert min(sys.modules[name].PRIORITY for name in parts) > own
    assert own == priority()
    for name in (*parts, done):
        assert importer_of(name) == "imports"
    os.close(read)
    os.close(write)


def test_the_main_thread_imports_the_rest_once_there_is_a_message(
    part: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for = threading.Event()

    class Thread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            waited_for.set()
            super().join(timeout)

    monkeypatch.setattr(threading, "Thread", Thread)
    # Holds the first part until the main thread waits for it.
    monkeypatch.setattr(threading, "held", waited_for.wait, raising=False)
    first, second = part("held_1", "threading.held(30)"), part("held_2")
    start.import_parts([first, second], until=lambda: None)
    main = threading.current_thread().name
    assert (importer_of(first), importer_of(second)) == ("imports", main)


def test_the_process_ends_where_a_module_cannot_be_imported(
    part: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So a spare worker that failed is no model's fault."""
    ended: Queue[int] = Queue()
    monkeypatch.setattr(os, "_exit", ended.put)
    broken = part("broken_1", "raise MemoryError('no room')")
    start.import_parts([broken], until=lambda: ended.get(timeout=30))
    assert "MemoryError: no room" in capsys.readouterr().err

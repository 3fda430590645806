"""Threads beside decoding stand behind it, whatever priority the server was started with."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.engine.priority import give_way


@pytest.mark.skipif(sys.platform != "linux", reason="Elsewhere threads have no priorities.")
def test_a_thread_of_a_nice_server_gives_way_too() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def becomes_nicer() -> bool:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(10, niceness()))
        usual = niceness()
        give_way()
        return niceness() > usual or usual == 19  # there is nothing nicer

    assert ThreadPoolExecutor(1).submit(becomes_nicer).result(30)

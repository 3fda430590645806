"""Entry of a worker process: imports what it needs, and does so beside others until it has a model.

    python -m server.worker.serve.start --fd N

A worker in reserve takes half a second of a core, which the models that are in use need more. So a
thread of lower priority imports. When the first message comes, the main thread goes on in its
place: a process may not raise a priority that it has lowered.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module

from server.engine.priority import give_way

# In parts, the last of which needs all others. One that has begun is waited for, so the first are
# short: a worker that was not in reserve gets its message at once.
_PARTS = (
    "msgspec",
    "server.worker.protocol",
    "numpy",
    "server.engine.llama",
    "server.engine.engine",
    "server.prompt.chat_model",
    "server.worker.serve.load",
    "server.worker.serve.process",
)


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(description="Serve one model to the API process.")
    parser.add_argument("--fd", type=int, required=True)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the API process, which drains
    _leave_batch()
    endpoint = socket.socket(fileno=parser.parse_args().fd)
    import_parts(_PARTS, until=lambda: _await_message(endpoint))
    import_module(_PARTS[-1]).main(endpoint)


def import_parts(parts: Iterable[str], *, until: Callable[[], object]) -> None:
    """Import modules on a thread that gives way, and once ``until`` returns, on this one.

    Where that fails the process ends, as it does where the main thread fails.
    """
    left = iter(parts)
    takes_over = threading.Event()

    def import_gently() -> None:
        give_way()
        try:
            for part in left:
                import_module(part)
                if takes_over.is_set():
                    return
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    thread = threading.Thread(target=import_gently, name="imports", daemon=True)
    thread.start()
    until()
    takes_over.set()
    thread.join()
    for part in left:
        import_module(part)


def _await_message(endpoint: socket.socket) -> None:
    """Return when there is something to read, or the API process has gone."""
    arrivals = select.poll()
    arrivals.register(endpoint, select.POLLIN)
    arrivals.poll()


def _leave_batch() -> None:
    """Undo what a child inherits: the API process gives way to this one (`server.cli.serve`)."""
    if sys.platform == "linux":
        with suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_BATCH:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


if __name__ == "__main__":
    main()

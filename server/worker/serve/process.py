"""The worker process: one model, served over a socket to the API process.

Threads: the main thread runs the engine, or shows prompts where the model does not generate;
*reader* takes messages from the socket; *preparer* renders and tokenises; *images* encodes those of
prompts; *embeddings* or *ranking* compute; *heartbeat* reports. Each sends its own messages. When
the API process is gone the worker ends.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

from server.core.errors import ConversationError
from server.engine.llama import LoadError
from server.library.gguf import InvalidGguf
from server.prompt.families.definitions import FamilyError
from server.prompt.template import limits
from server.worker.protocol import (
    EXIT_LOAD_FAILED,
    EXIT_TEMPLATE_STUCK,
    Load,
    LoadFailed,
    Ready,
    Request,
)
from server.worker.serve.connection import Connection
from server.worker.serve.load import load
from server.worker.serve.services import Services, services_of

HEARTBEAT_SECONDS = 1.0
# How long a thread may keep the interpreter while others want it. With Python's 5 ms, the engine
# would wait that long after a step for a prompt that is being prepared.
_SWITCH_SECONDS = 0.0005
# How long a process that is to end may go on with its last step.
_STEP_SECONDS = 2.0


def main(endpoint: socket.socket) -> None:
    """Load the model that the API process names at ``endpoint``, and serve it."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    connection = Connection(endpoint)
    request = connection.receive()
    if not isinstance(request, Load):
        return
    try:
        model = load(request, connection.send)
    except (LoadError, InvalidGguf, FamilyError, OSError) as error:
        # Clients see this message; an OSError's own would show them where the file is.
        reason = error.strerror if isinstance(error, OSError) else None
        connection.send(LoadFailed(message=reason or str(error)))
        sys.exit(EXIT_LOAD_FAILED)
    gc.freeze()  # what is there now stays to the end: no collection need look at it again
    serve(connection, services_of(model, request.settings, connection.send))


def serve(connection: Connection, services: Services) -> None:
    """Serve until the API process says, by `Shutdown` or by closing the socket, that it is over."""
    limits.on_stuck(lambda: _give_up(services))
    for name, run in services.threads.items():
        _spawn(name, run)
    _spawn("heartbeat", lambda: _beat(connection, services))
    connection.send(Ready(info=services.info))
    stopped = threading.Event()
    connection.is_read = True
    _spawn("reader", lambda: _read(connection, services, stopped))
    services.run()
    stopped.set()
    services.close()
    os._exit(0)


def _read(connection: Connection, services: Services, stopped: threading.Event) -> None:
    """Hand on each request; when there are no more, the process ends after its current step."""
    while isinstance(message := connection.receive(), Request):
        services.handle(message)
    services.stop()
    if not stopped.wait(_STEP_SECONDS):
        os._exit(0)


def _give_up(services: Services) -> None:
    """End the process, whose template cannot be stopped, once its request has an answer."""
    message = "The chat template took too long and could not be interrupted."
    services.fail_current(ConversationError(message))
    os._exit(EXIT_TEMPLATE_STUCK)


def _beat(connection: Connection, services: Services) -> None:
    """Show again and again that the process is alive."""
    while True:
        connection.send(services.heartbeat())
        time.sleep(HEARTBEAT_SECONDS)


def _spawn(name: str, target: Callable[[], None]) -> None:
    threading.Thread(target=target, name=name, daemon=True).start()

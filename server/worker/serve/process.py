"""The worker process: one model, served over a socket to the API process.

    python -m server.worker.serve.process --fd N

Threads: *reader* takes messages from the socket, *preparer* renders and tokenises, the main thread
runs the engine, *embeddings* computes those, *heartbeat* reports. Each sends its own messages. When
the API process is gone the worker ends.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from server.core.errors import ConversationError, DragomanError, InvalidRequest
from server.core.events import Event, Failed
from server.core.model_info import EngineStats
from server.engine.engine import Engine
from server.engine.llama import LoadError
from server.library.gguf import InvalidGguf
from server.prompt.families.family import FamilyError
from server.prompt.template import limits
from server.worker.protocol import (
    EXIT_LOAD_FAILED,
    EXIT_TEMPLATE_STUCK,
    Cancel,
    Embed,
    FrameBuffer,
    FromWorker,
    Generate,
    Heartbeat,
    Load,
    LoadFailed,
    Ready,
    Render,
    Rendered,
    Shutdown,
    StepEvents,
    ToWorker,
    frame,
    to_worker_decoder,
)
from server.worker.serve.embed import EmbeddingService
from server.worker.serve.load import Loaded, load
from server.worker.serve.prepare import Preparer, render

HEARTBEAT_SECONDS = 1.0
_READ_BYTES = 1 << 20
# How long a thread may keep the interpreter while others want it. With Python's 5 ms, the engine
# would wait so long after a step for a prompt that is being prepared.
_SWITCH_SECONDS = 0.0005
# How long a process that is to end may go on with its last step.
_STEP_SECONDS = 2.0


class _Connection:
    """The socket to the API process."""

    def __init__(self, endpoint: socket.socket) -> None:
        self._socket = endpoint
        self._buffer = FrameBuffer()
        self._payloads: list[bytes] = []
        self._sending = threading.Lock()
        self._arrivals = select.poll()
        self._arrivals.register(endpoint, select.POLLIN)

    def send(self, message: FromWorker) -> None:
        """Send ``message``, from any thread; waits where the API process does not keep up.

        Not by a thread of its own: that would get hold of the interpreter only when the next step
        has begun, and the API process would then take a core from it.
        """
        data = frame(message)
        with self._sending:
            try:
                self._socket.sendall(data)
            except OSError:
                os._exit(0)  # the API process is gone

    def receive(self) -> ToWorker:
        """The next message; a closed socket is a Shutdown."""
        while not self._payloads:
            # A thread that waits in recv() would be woken by each thing sent, too, when it is read.
            self._arrivals.poll()
            data = self._socket.recv(_READ_BYTES)
            if not data:
                return Shutdown()
            self._payloads = self._buffer.feed(data)
        return to_worker_decoder.decode(self._payloads.pop(0))


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(description="Serve one model to the API process.")
    parser.add_argument("--fd", type=int, required=True)
    faulthandler.enable()
    sys.setswitchinterval(_SWITCH_SECONDS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the API process, which drains
    _leave_batch()
    connection = _Connection(socket.socket(fileno=parser.parse_args().fd))
    request = connection.receive()
    if not isinstance(request, Load):
        return
    try:
        loaded = load(request, connection.send)
    except (LoadError, InvalidGguf, FamilyError, OSError) as error:
        # Clients see this; where the file is, as an OSError says it, is nobody's business.
        reason = error.strerror if isinstance(error, OSError) else None
        connection.send(LoadFailed(message=reason or str(error)))
        sys.exit(EXIT_LOAD_FAILED)
    gc.freeze()  # what is there now stays to the end: no collection need look at it again
    if loaded.open_embedder is None:
        connection.send(Ready(info=loaded.info))
        _serve_renders(connection, loaded)
    elif loaded.context is None:
        _serve_embeddings(connection, loaded, request)
    else:
        _serve(connection, loaded, request)


def _leave_batch() -> None:
    """Undo what a child inherits: the API process gives way to this one (`server.cli.serve`)."""
    if sys.platform == "linux":
        with suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_BATCH:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _serve(connection: _Connection, loaded: Loaded, request: Load) -> None:
    """Run the engine on this thread until the API process says or shows that it is over."""
    settings = request.settings
    assert loaded.context is not None

    def send_events(events: list[Event]) -> None:
        if events:
            connection.send(StepEvents(events=events))

    engine = Engine(
        loaded.context,
        send_events,
        parallel=settings.parallel,
        inter_token_budget=settings.itl_budget_ms / 1000,
        prompt_lookup=settings.prompt_lookup,
        threads=loaded.info.threads,
        on_gpu=loaded.info.gpu_layers > 0,
        stored_tokens=loaded.stored_tokens,
    )
    preparer = Preparer(loaded, engine, send_events, connection.send, settings.queue_size)
    embeddings = EmbeddingService(loaded, connection.send, settings.queue_size)

    _end_when_stuck(connection, preparer.fail_current)
    _spawn("preparer", preparer.run)
    _spawn("embeddings", embeddings.run)
    _spawn("heartbeat", lambda: _beat(connection, lambda: _engine_beat(engine, embeddings, loaded)))
    connection.send(Ready(info=loaded.info))
    _spawn("reader", lambda: _read(connection, engine, preparer, embeddings))
    engine.run()
    os._exit(0)


def _read(
    connection: _Connection, engine: Engine, preparer: Preparer, embeddings: EmbeddingService
) -> None:
    """Hand on what comes in, until it ends; the engine then ends the process after its step."""
    while True:
        message = connection.receive()
        match message:
            case Generate():
                preparer.generate(message)
            case Cancel(id=request_id):
                preparer.cancel(request_id)
                embeddings.cancel(request_id)
            case Render():
                preparer.render(message)
            case Embed():
                embeddings.submit(message)
            case _:
                engine.stop()
                time.sleep(_STEP_SECONDS)
                os._exit(0)


def _serve_embeddings(connection: _Connection, loaded: Loaded, request: Load) -> None:
    """Answer with embeddings, and show prompts, for a model that does not generate."""
    embeddings = EmbeddingService(loaded, connection.send, request.settings.queue_size)

    rendering: Render | None = None

    def heartbeat() -> Heartbeat:
        stats = EngineStats(threads=loaded.info.threads)
        return Heartbeat(step_seconds=embeddings.step_seconds, stats=stats)

    def fail_current(message: str) -> None:
        if rendering is not None:
            connection.send(Rendered(id=rendering.id, error=ConversationError(message).info))

    _end_when_stuck(connection, fail_current)
    _spawn("embeddings", embeddings.run)
    _spawn("heartbeat", lambda: _beat(connection, heartbeat))
    connection.send(Ready(info=loaded.info))
    refusal = InvalidRequest(
        f"The model {loaded.info.model_id!r} computes embeddings; it does not generate.",
        at=("model",),
    )
    while True:
        message = connection.receive()
        match message:
            case Embed():
                embeddings.submit(message)
            case Cancel(id=request_id):
                embeddings.cancel(request_id)
            case Render():
                rendering = message
                connection.send(_rendered(loaded, message))
                rendering = None
            case Generate(id=request_id):
                events: list[Event] = [Failed(id=request_id, error=refusal.info)]
                connection.send(StepEvents(events=events))
            case _:
                return


def _serve_renders(connection: _Connection, loaded: Loaded) -> None:
    """Answer `Render` only, for a worker without weights."""
    while isinstance(message := connection.receive(), Render):
        connection.send(_rendered(loaded, message))


def _rendered(loaded: Loaded, request: Render) -> Rendered:
    try:
        return Rendered(id=request.id, prompt=render(loaded, request.prompt))
    except DragomanError as error:
        return Rendered(id=request.id, error=error.info)


def _end_when_stuck(connection: _Connection, fail_current: Callable[[str], None]) -> None:
    """End the process when a template cannot be stopped, after its request got an answer."""

    def give_up() -> None:
        fail_current("The chat template took too long and could not be interrupted.")
        os._exit(EXIT_TEMPLATE_STUCK)

    limits.on_stuck(give_up)


def _beat(connection: _Connection, heartbeat: Callable[[], Heartbeat]) -> None:
    """Show again and again that the process is alive."""
    while True:
        connection.send(heartbeat())
        time.sleep(HEARTBEAT_SECONDS)


def _engine_beat(engine: Engine, embeddings: EmbeddingService, loaded: Loaded) -> Heartbeat:
    """How long the current step, or embeddings beside it, have taken, and the counters."""
    assert loaded.context is not None
    started = engine.step_started
    step_seconds = 0.0 if started is None else time.monotonic() - started
    return Heartbeat(
        step_seconds=max(step_seconds, embeddings.step_seconds),
        stats=EngineStats(
            active=engine.active,
            waiting=engine.waiting,
            kv_cells=loaded.context.kv_cells,
            kv_cells_used=engine.cells_used,
            threads=engine.threads,
            steps_total=engine.counters.steps,
            prompt_tokens_total=engine.counters.prompt_tokens,
            generated_tokens_total=engine.counters.generated_tokens,
            cached_tokens_total=engine.counters.cached_tokens,
            preemptions_total=engine.counters.preemptions,
        ),
    )


def _spawn(name: str, target: Callable[[], None]) -> None:
    threading.Thread(target=target, name=name, daemon=True).start()


if __name__ == "__main__":
    main()

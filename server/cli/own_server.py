"""A server for the time of one conversation, where none runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from server.cli.console import CommandError
from server.cli.server_client import Client, ServerError, local_client
from server.cli.terminal import waiting
from server.core.settings import Settings

_POLL_SECONDS = 0.1
# Ends answers that run, and then workers; a choice.
_END_SECONDS = 20.0
_LAST_LINES = 5
# By default, these end a process without a chance to end others.
_ENDS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def own_server(settings: Settings, model: Path | None = None) -> Iterator[Client]:
    """Serve ``model``, or the models folder, at the settings' address meanwhile.

    Its log goes to a file in the cache.

    Raises CommandError with the end of the log if it does not start.
    """
    log = settings.cache_dir / "run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "server.cli", "serve"]
    command += [] if model is None else [str(model)]
    command += ["--host", settings.host, "--port", str(settings.port)]
    command += ["--models-dir", str(settings.models_dir), "--cache-dir", str(settings.cache_dir)]
    if settings.config is not None:
        command += ["--config", str(settings.config)]
    with log.open("wb") as output:
        # In a session of its own, Ctrl-C stops an answer and not the server.
        server = subprocess.Popen(  # noqa: S603 - the command is ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with _ending(server):
        client = local_client(settings, None)
        with waiting("starting a server"):
            while not _answers(client):
                if server.poll() is not None:
                    raise CommandError(f"the server did not start:\n{_end_of(log)}")
                time.sleep(_POLL_SECONDS)
        yield client


@contextmanager
def _ending(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the server afterwards, also when this process is to end or its terminal is closed."""
    handlers = {number: signal.signal(number, _leave) for number in _ENDS}
    try:
        yield
    finally:
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(_END_SECONDS)
        server.kill()
        server.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _answers(client: Client) -> bool:
    try:
        client.get("/health/live")
    except ServerError:
        return False
    return True


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-_LAST_LINES:]) or f"its log is empty ({log})"

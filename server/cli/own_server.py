"""A server for the time of one conversation, where none runs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.cli.console import CommandError
from server.cli.server_client import Client, ServerError, local_client
from server.cli.terminal import waiting
from server.core.settings import Settings

_POLL_SECONDS = 0.1
# Ends answers that run, and then workers; a choice.
_END_SECONDS = 20.0
_LAST_LINES = 5


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
    try:
        client = local_client(settings, None)
        with waiting("starting a server"):
            while not _answers(client):
                if server.poll() is not None:
                    raise CommandError(f"the server did not start:\n{_end_of(log)}")
                time.sleep(_POLL_SECONDS)
        yield client
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(_END_SECONDS)
        server.kill()
        server.wait()


def _answers(client: Client) -> bool:
    try:
        client.get("/health/live")
    except ServerError:
        return False
    return True


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-_LAST_LINES:]) or f"its log is empty ({log})"

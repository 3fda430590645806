"""Pulls that a running server makes: each in a process of its own, which a cancel ends at once.

What it has fetched stays in the cache, and the next pull of the same model goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from server.core.errors import InvalidRequest, NotFound, QueueFull
from server.core.pulls import Pull, Pullable
from server.library.pull.catalog import read_catalog
from server.library.pull.download import PullError
from server.library.pull.fetch import full_name

logger = logging.getLogger(__name__)

PULL_COMMAND = (sys.executable, "-P", "-m", "server.library.pull.reporting")

# The most pulls that run or wait for another, and that are remembered; choices.
_MOST_RUNNING = 8
_MOST_REMEMBERED = 20
# Seconds over which the speed is measured; a choice.
_WINDOW = 5.0
_RETRY_SECONDS = 10.0


class BackgroundPulls:
    """The server's `Pulls`: into ``models_dir``, by way of ``cache_dir``.

    A pull is done once ``list_models`` has been called after it, so that who hears of it finds the
    model listed.
    """

    def __init__(
        self,
        models_dir: Path,
        cache_dir: Path,
        command: Sequence[str] = PULL_COMMAND,
        *,
        list_models: Callable[[], Awaitable[None]],
    ) -> None:
        self._folders = (str(models_dir), str(cache_dir))
        self._command = command
        self._list_models = list_models
        self._runs: dict[str, _Run] = {}

    def catalog(self) -> list[Pullable]:
        """The entries of the catalog that comes with the server."""
        return [
            Pullable(
                name=name,
                description=entry.description,
                kind=entry.kind,
                licence=entry.licence,
                bytes=entry.bytes,
            )
            for name, entry in read_catalog().items()
        ]

    def all(self) -> list[Pull]:
        """The newest first."""
        return [run.pull for run in reversed(self._runs.values())]

    def get(self, pull_id: str) -> Pull:
        """One pull; raises NotFound."""
        return self._run(pull_id).pull

    async def start(self, model: str) -> Pull:
        """Begin to pull a model, or find the pull of it that runs.

        Raises InvalidRequest and QueueFull.
        """
        try:
            name = full_name(model)
        except PullError as error:
            raise InvalidRequest(_sentence(str(error)), at=("model",)) from error
        running = [run for run in self._runs.values() if run.pull.state == "running"]
        for run in running:
            if run.pull.model == name:
                return run.pull
        if len(running) >= _MOST_RUNNING:
            raise QueueFull(f"{len(running)} pulls run already.", retry_after=_RETRY_SECONDS)
        pull = Pull(id=f"pull_{uuid.uuid4().hex}", model=name, created=int(time.time()))
        started = _Run(pull, self._list_models)
        self._runs[started.pull.id] = started
        self._forget_old()
        started.task = asyncio.create_task(started.follow([*self._command, name, *self._folders]))
        return started.pull

    async def cancel(self, pull_id: str) -> Pull:
        """End a pull; raises NotFound. One that has ended stays as it is."""
        run = self._run(pull_id)
        await run.end()
        return run.pull

    async def close(self) -> None:
        """End all pulls."""
        await asyncio.gather(*(run.end() for run in self._runs.values()))

    def _run(self, pull_id: str) -> _Run:
        if pull_id not in self._runs:
            raise NotFound(f"There is no pull {pull_id[:100]!r}.")
        return self._runs[pull_id]

    def _forget_old(self) -> None:
        ended = [each for each, run in self._runs.items() if run.pull.state != "running"]
        for each in ended[: max(0, len(self._runs) - _MOST_REMEMBERED)]:
            del self._runs[each]


class _Run:
    """One pull and the process that makes it."""

    def __init__(self, pull: Pull, list_models: Callable[[], Awaitable[None]]) -> None:
        self.pull = pull
        self._list_models = list_models
        self.task: asyncio.Task[None] | None = None
        self._seen: deque[tuple[float, int]] = deque()

    async def follow(self, command: Sequence[str]) -> None:
        """Run the process and note what it reports."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            self._change(state="failed", error=f"It cannot be started: {error}.")
            return
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                await self._note(msgspec.json.decode(line))
            await process.wait()
        finally:
            # Also where this task is cancelled.
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            if self.pull.state == "running":
                self._change(state="failed", error="It ended without a reason.")
            logger.info("pull of %s: %s", self.pull.model, self.pull.error or self.pull.state)

    async def end(self) -> None:
        """Cancel the pull unless it has ended, and wait until its process is gone."""
        if self.pull.state == "running":
            self._change(state="cancelled")
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _note(self, report: dict[str, Any]) -> None:
        if self.pull.state != "running":
            return
        if error := report.get("error"):
            missing = bool(report.get("unreachable"))
            self._change(state="failed", error=_sentence(error), unreachable=missing)
        elif file := report.get("file"):
            await self._list_models()
            self._change(state="done", file=file)
        else:
            if report["stage"] != self.pull.stage:
                self._seen.clear()
            self._change(**report, speed=self._speed(report["done"]))

    def _speed(self, done: int) -> float:
        now = time.monotonic()
        self._seen.append((now, done))
        while now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        began, before = self._seen[0]
        return (done - before) / (now - began) if now > began else 0.0

    def _change(self, **changes: Any) -> None:
        if changes.get("state", "running") != "running":
            changes["speed"] = 0.0
        self.pull = msgspec.structs.replace(self.pull, **changes)


def _sentence(message: str) -> str:
    """A message of the command line as a sentence of the API."""
    return message[:1].upper() + message[1:].removesuffix(".") + "."

"""One worker process and the socket to it, from spawn to exit."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress

import msgspec

from server.worker.protocol import (
    EXIT_LOAD_FAILED,
    EXIT_TEMPLATE_STUCK,
    FrameBuffer,
    FromWorker,
    Generate,
    Shutdown,
    ToWorker,
    frame,
    from_worker_decoder,
    request_frame,
)
from server.worker.supervise.held_files import HeldFiles
from server.worker.supervise.launch import Launched, launch

_MAX_LINE_BYTES = 8 * 1024
_KEPT_LINES = 60
# With this Python begins to say where a process was when a signal ended it (`faulthandler`).
_TRACEBACK = "Fatal Python error:"
# The pipe normally closes with the process. A grandchild that holds it open must not delay the
# report of how the worker ended.
_OUTPUT_SECONDS = 0.2
_POLL_SECONDS = 0.01
_EXITS = {
    EXIT_LOAD_FAILED: "could not load its model",
    EXIT_TEMPLATE_STUCK: "gave up because its chat template could not be interrupted",
}
_SIGNALS = frozenset(signal.Signals)


class _UnreadableMessage(Exception):
    """A worker sent bytes that are no message."""


class _Frames(asyncio.StreamReaderProtocol):
    """Handles each message as soon as its bytes arrive; the reader only tells when the stream ends.

    A task that read the messages would add a task switch for every token.
    """

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._reader = reader
        self._buffer = FrameBuffer()
        self.handle: Callable[[FromWorker], None] | None = None

    def data_received(self, data: bytes) -> None:
        """Handle the messages in ``data``; an error in that is raised where the reader is read."""
        try:
            for message in self._messages(data):
                if self.handle is not None:
                    self.handle(message)
        except Exception as error:
            self.handle = None
            self._reader.set_exception(error)

    def _messages(self, data: bytes) -> Iterator[FromWorker]:
        try:
            for payload in self._buffer.feed(data):
                yield from_worker_decoder.decode(payload)
        except (ValueError, msgspec.DecodeError) as error:
            raise _UnreadableMessage(str(error)) from error


class WorkerProcess:
    """A spawned worker; `spawn` is the constructor.

    The worker runs in a process group of its own, so that Ctrl-C in the terminal reaches the API
    process alone, which then drains. Everything it prints goes to ``log``, line by line: at level
    `info`, and the traceback of a crash, which may be an expected one, at `debug`.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        log: logging.Logger,
        *,
        frames: _Frames,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        output: asyncio.StreamReader,
        output_transport: asyncio.ReadTransport,
    ) -> None:
        self._process = process
        self._frames = frames
        self._reader = reader
        self._writer = writer
        self._output_transport = output_transport
        self._killed_because: str | None = None
        self._files = HeldFiles()
        self.log = log
        self._level = logging.INFO
        self._last_lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)
        self._output = asyncio.create_task(self._follow(output))

    @classmethod
    async def spawn(cls, command: Sequence[str], log: logging.Logger) -> WorkerProcess:
        """Launch ``command`` (`launch`).

        Raises OSError when the process or its descriptors cannot be created.
        """
        return await cls.adopt(launch(command), log)

    @classmethod
    async def adopt(cls, launched: Launched, log: logging.Logger) -> WorkerProcess:
        """The process that was ``launched``. Raises OSError like `spawn`."""
        process, ours = launched
        with ExitStack() as undo:
            undo.callback(ours.close)
            undo.enter_context(process)
            undo.callback(process.kill)
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader()
            transport, frames = await loop.create_unix_connection(
                lambda: _Frames(reader, loop), sock=ours
            )
            output = asyncio.StreamReader()
            output_transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(output), process.stdout
            )
            undo.pop_all()
        return cls(
            process,
            log,
            frames=frames,
            reader=reader,
            writer=asyncio.StreamWriter(transport, frames, reader, loop),
            output=output,
            output_transport=output_transport,
        )

    @property
    def pid(self) -> int:
        """The operating system's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def last_lines(self) -> list[str]:
        """Its last output."""
        return [line for _, line in self._last_lines]

    @property
    def unlogged_lines(self) -> list[str]:
        """Those of its last output that the log does not have."""
        return [line for level, line in self._last_lines if not self.log.isEnabledFor(level)]

    @property
    def died_by(self) -> signal.Signals | None:
        """The signal that ended the process, once it has ended; None for our own kill."""
        code = self._process.returncode
        if code is None or -code not in _SIGNALS or self._killed_because is not None:
            return None
        return signal.Signals(-code)

    async def receive(self, handle: Callable[[FromWorker], None]) -> None:
        """Pass every message to ``handle`` until the worker's end of the socket closes.

        A worker sends nothing before `Load`, so no message arrives before this call. Raises what
        ``handle`` raises.
        """
        self._frames.handle = handle
        try:
            await self._reader.read()
        except ConnectionError:
            pass
        except _UnreadableMessage as error:
            self.kill(f"it sent an unreadable message ({error})")
        finally:
            self._frames.handle = None

    def post(self, message: ToWorker) -> None:
        """Send a small message without waiting. To a dead worker it is dropped."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def send(self, message: ToWorker) -> None:
        """Send a message and wait until the socket takes more.

        Raises ConnectionError, or InvalidRequest for a message that is too long.
        """
        # uvloop would raise a RuntimeError.
        if self._writer.is_closing():
            raise ConnectionResetError("the worker has closed its end of the socket")
        for each in self._files.messages(message) if isinstance(message, Generate) else [message]:
            self._writer.write(request_frame(each))
        await self._writer.drain()

    def kill(self, why: str) -> None:
        """End the process by SIGKILL, the one signal that a stopped or hanging process obeys."""
        if self._process.poll() is None and self._killed_because is None:
            self._killed_because = why
            self._process.kill()

    async def end(self, grace_seconds: float) -> str:
        """Ask the process to exit, kill it after ``grace_seconds``, and say how it ended."""
        self.post(Shutdown())
        deadline = time.monotonic() + grace_seconds
        while self._process.poll() is None:
            if time.monotonic() >= deadline:
                self.kill(f"it did not exit within {grace_seconds:g} s")
            await asyncio.sleep(_POLL_SECONDS)
        self._writer.close()
        with suppress(OSError):
            # If this call is cancelled, the next one can still wait for the same.
            await asyncio.shield(self._writer.wait_closed())
        await asyncio.wait([self._output], timeout=_OUTPUT_SECONDS)
        self._output.cancel()
        self._output_transport.close()
        return self._exit_in_words()

    def _exit_in_words(self) -> str:
        code = self._process.returncode
        if self._killed_because is not None:
            return f"was killed because {self._killed_because}"
        died_by = self.died_by
        if died_by is None:
            return _EXITS.get(code or 0, f"exited with code {code}")
        if died_by is signal.SIGKILL:
            return "was killed by SIGKILL (by someone, or by the system when memory ran out)"
        return f"was killed by {died_by.name} ({signal.strsignal(died_by)})"

    async def _follow(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await output.read(_MAX_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MAX_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._note(line)
        if rest:
            self._note(rest)

    def _note(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text.startswith(_TRACEBACK):
            self._level = logging.DEBUG
        self._last_lines.append((self._level, text))
        self.log.log(self._level, "%s", text)

"""An OpenAI endpoint that streams scripted pieces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

Script = Callable[[dict[str, Any]], Sequence[bytes]]


def chunk(content: str) -> bytes:
    """An event with a piece of text."""
    return event({"choices": [{"delta": {"content": content}, "finish_reason": None}]})


def usage(prompt: int, completion: int, **details: dict[str, int]) -> bytes:
    """The event with the usage."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return event({"choices": [], "usage": counts | details})


def event(data: object) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


class FakeEndpoint:
    """Answers each request with the pieces that ``script`` makes of its body.

    It answers none before ``together`` requests have arrived.
    """

    def __init__(self, script: Script, status: int = 200, together: int = 1) -> None:
        self.script = script
        self.status = status
        self.requests: list[tuple[bytes, dict[str, Any]]] = []
        self.most_at_once = 0
        self._now = 0
        self._together = together
        self._enough = asyncio.Event()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeEndpoint]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        body = json.loads(await reader.readexactly(length))
        self.requests.append((head, body))
        if self._now >= self._together:
            self._enough.set()
        await self._enough.wait()
        writer.write(b"HTTP/1.1 %d Scripted\r\ntransfer-encoding: chunked\r\n\r\n" % self.status)
        for piece in self.script(body):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(b"0\r\n\r\n")
        self._now -= 1
        writer.close()

"""A real server whose models are scripts; see `scripted_worker`."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.app import create_app
from server.core.model_source import ModelFile
from server.core.request import ChatPrompt, GenerationRequest
from server.core.settings import Settings
from server.core.worker_settings import WorkerSettings
from server.http import transport
from server.worker.supervise.pool import ModelPool
from tests.conformance.recorded import Sent
from tests.conformance.scripted_worker import Script, Turn, requests_file

MODEL = "scripted"
_WORKER = (sys.executable, "-m", "tests.conformance.scripted_worker")


def call(name: str, **arguments: Any) -> str:
    """A call as Hermes writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class ScriptedServer:
    """A server on a free port; ``url`` is its root, ``sent`` are the requests that it got."""

    def __init__(self, url: str, script: Path, sent: Sequence[Sent]) -> None:
        self.url = url
        self.sent = sent
        self._script = script

    async def load(self) -> None:
        """Load the model, as its context is not known before."""
        async with httpx.AsyncClient(base_url=self.url) as http:
            body = {"model": MODEL, "input": ""}
            assert (await http.post("/v1/responses/input_tokens", json=body)).status_code == 200

    def requests(self) -> list[GenerationRequest]:
        """The requests that reached the model, in order."""
        lines = requests_file(self._script).read_bytes().splitlines()
        return [msgspec.json.decode(line, type=GenerationRequest) for line in lines]

    def prompts(self) -> list[ChatPrompt]:
        """Their conversations."""
        prompts = [request.prompt for request in self.requests()]
        return [prompt for prompt in prompts if isinstance(prompt, ChatPrompt)]


class _Recorder:
    """An application that notes what is posted to another one."""

    def __init__(self, app: ASGIApp, sent: list[Sent]) -> None:
        self._app = app
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()

        async def noted() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            ended = message["type"] == "http.request" and not message.get("more_body")
            if ended and scope["method"] == "POST":
                query = scope["query_string"].decode()
                path = f"{scope['path']}?{query}" if query else scope["path"]
                self._sent.append(Sent.of(path, bytes(body)))
            return message

        await self._app(scope, noted, send)


class _Scripts:
    """A `ModelSource` of one script."""

    def __init__(self, script: Path) -> None:
        self._file = ModelFile(
            id=MODEL, path=str(script), created=1, memory_bytes=1, settings=WorkerSettings()
        )

    def scan(self) -> Sequence[ModelFile]:
        return [self._file]


@asynccontextmanager
async def scripted_server(
    folder: Path, *turns: Turn, script: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[ScriptedServer]:
    """A server of the model ``scripted``, which says ``turns``, while the context lasts."""
    file = folder / "scripted.json"
    file.write_bytes(msgspec.json.encode(Script(turns=list(turns), **script or {})))
    chosen = Settings(**{"drain_seconds": 0, **settings})
    pool = ModelPool(_Scripts(file), memory_budget=1 << 30, command=_WORKER)
    await pool.start()
    app = create_app(chosen, pool)
    sent: list[Sent] = []
    app.add_middleware(_Recorder, sent=sent)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = transport.Server(app, chosen, pool)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.listening.wait()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield ScriptedServer(url, file, sent)
        finally:
            server.should_exit = True
            await asyncio.wait_for(serving, 20)
            await pool.close(0.0)

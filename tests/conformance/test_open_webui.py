"""Open WebUI with what `dragoman connect` prints for it; the model is a script.

It brings 3 GB, so these run where `make open-webui` has installed it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.agent_programs import printed_configuration
from tests.conformance.scripted import MODEL, ScriptedServer, call, scripted_server
from tests.conformance.scripted_worker import Turn
from tests.e2e.server import CHECKOUT, free_port

_PROGRAMS = CHECKOUT / ".venv-open-webui" / "bin"
_START_SECONDS = 120
_QUESTION = {"role": "user", "content": "What is the capital of Australia?"}
_TOOL = {
    "type": "function",
    "function": {
        "name": "inhabitants",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not (_PROGRAMS / "open-webui").exists(), reason="`make open-webui` has not installed it"
    ),
]


@asynccontextmanager
async def open_webui(server: ScriptedServer, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """It runs as printed, and the client has signed up as its first user."""
    port = free_port()
    printed = await printed_configuration("open-webui", server.url, folder)
    script = printed.replace("--port 8080", f"--port {port}")
    assert script != printed
    environment = {
        "PATH": f"{_PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "DATA_DIR": str(folder / "data"),
        # It would fetch a model that embeds documents.
        "HF_HUB_OFFLINE": "1",
    }
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "bash", "-ec", script, env=environment, cwd=folder, stdout=log, stderr=log
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                await _started(http)
                account = {"name": "Ada", "email": "ada@example.com", "password": "Secret-1234"}
                signed_up = await http.post("/api/v1/auths/signup", json=account)
                http.headers["authorization"] = f"Bearer {signed_up.json()['token']}"
                yield http
        finally:
            process.terminate()
            await process.wait()


async def _started(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                if (await http.get("/health")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.5)


async def completion(http: httpx.AsyncClient, path: str, **body: Any) -> Any:
    """The answer to a request like those of its page."""
    answer = await http.post(path, json={"model": MODEL, "messages": [_QUESTION], **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]


async def streamed(http: httpx.AsyncClient) -> str:
    """The answer to the question, as it streams."""
    body = {"model": MODEL, "messages": [_QUESTION], "stream": True}
    answer = await http.post("/api/chat/completions", json=body)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_it_lists_answers_and_names(tmp_path: Path) -> None:
    turns = [
        Turn(tools=False, when="title", say='{"title": "Capitals"}'),
        Turn(tools=False, say="Canberra."),
        Turn(tools=False, say="Canberra, of course."),
        Turn(tools=True, say=call("inhabitants", city="Canberra")),
    ]
    async with scripted_server(tmp_path, *turns) as server, open_webui(server, tmp_path) as http:
        models = (await http.get("/api/models")).json()["data"]
        whole = await completion(http, "/api/chat/completions", stream=False)
        piecewise = await streamed(http)
        title = await completion(http, "/api/v1/tasks/title/completions")
        calling = await completion(http, "/api/chat/completions", stream=False, tools=[_TOOL])
    assert [model["id"] for model in models] == [MODEL]
    assert whole["content"] == "Canberra."
    assert piecewise == "Canberra, of course."
    assert title["content"] == '{"title": "Capitals"}'
    assert calling["tool_calls"][0]["function"]["name"] == "inhabitants"
    # What its settings may add is nothing by default.
    assert server.sent[0].keys == {"model", "messages", "stream"}
    assert {sent.path for sent in server.sent} == {"/v1/chat/completions"}

"""Batches through the SDK, over the fake pool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

import httpx2
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI
from openai.types import Batch

from server.app import create_app
from server.core.settings import Settings
from server.store.file_folder import FileFolder
from tests.api.fakes import FakePool

CHAT = "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}


def removed_once_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have another request remove each file as soon as it is open."""
    opens = FileFolder.open

    def removed(folder: FileFolder, file_id: str) -> BinaryIO | None:
        opened = opens(folder, file_id)
        folder.remove(file_id)
        return opened

    monkeypatch.setattr(FileFolder, "open", removed)


@asynccontextmanager
async def batching(
    settings: Settings, pool: FakePool | None = None, key: str = "none"
) -> AsyncIterator[tuple[AsyncOpenAI, FastAPI]]:
    """The SDK's client of an application that runs batches."""
    app = create_app(settings, pool or FakePool())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
        yield (
            AsyncOpenAI(
                api_key=key,
                base_url="http://127.0.0.1:8000/v1",
                http_client=client,
                max_retries=0,
            ),
            app,
        )
        await app.state.context.batches.close()
    await app.state.context.store.close()


def chat_line(name: str, text: str = "hi", **fields: Any) -> dict[str, Any]:
    """A line that asks for a chat completion."""
    body = {"model": "test", "messages": [{"role": "user", "content": text}], **fields}
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": body}


def jsonl(lines: Iterable[dict[str, Any] | bytes]) -> bytes:
    """The contents of a file of these lines."""
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


async def begin(
    sdk: AsyncOpenAI,
    lines: Sequence[dict[str, Any] | bytes],
    endpoint: Any = CHAT,
    **fields: Any,
) -> Batch:
    """A batch of these lines, just begun."""
    file = await sdk.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    return strict(
        await sdk.batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields
        )
    )


async def ended(sdk: AsyncOpenAI, batch: Batch) -> Batch:
    """The batch once it has ended."""
    async with asyncio.timeout(30):
        while batch.status not in ENDED:
            await asyncio.sleep(0.01)
            batch = strict(await sdk.batches.retrieve(batch.id))
    return batch


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is true, for a while at most."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it is not ours to signal
            await asyncio.sleep(0.01)


def strict(batch: Batch) -> Batch:
    """The batch, valid in strict mode."""
    return Batch.model_validate(batch.model_dump(), strict=True)


async def results(sdk: AsyncOpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """The lines of a file of results by their custom_id; none comes twice."""
    assert file_id is not None
    lines = (await sdk.files.content(file_id)).text.splitlines()
    found = [json.loads(line) for line in lines]
    named = {line["custom_id"]: line for line in found}
    assert len(named) == len(found)
    for line in found:
        assert line.keys() == {"id", "custom_id", "response", "error"}
        assert line["id"].startswith("batch_req_")
    return named

"""Which keys may pull, load and unload models and adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from server.app import create_app
from server.core.settings import Settings
from tests.api.fakes import FakePool
from tests.api.pulling import FakePulls
from tests.api.wire import CHAT, assert_error, chat_body

MANAGING = {
    "/v1/pulls": {"model": "x"},
    "/v1/pulls/x/cancel": {},
    "/v1/models/load": {"model": "test"},
    "/v1/models/unload": {"model": "test"},
    "/v1/load_lora_adapter": {"lora_name": "a", "lora_path": "a.gguf"},
    "/v1/unload_lora_adapter": {"lora_name": "test:a"},
}


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with a key of its setting and two of a file, one of them an admin's."""
    file = tmp_path / "keys.toml"
    file.write_text('[keys.alice]\nkey = "user"\n[keys.root]\nkey = "admin"\nadmin = true\n')
    settings = Settings(keys_file=file, api_keys=["operator"])
    app = create_app(settings, FakePool(), pulls=FakePulls())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client
    await app.state.context.store.close()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", MANAGING)
async def test_a_key_of_the_file_manages_models_only_as_an_admin(
    http: httpx.AsyncClient, path: str
) -> None:
    refused = await http.post(path, json=MANAGING[path], headers=bearer("user"))
    message = assert_error(refused, 403, code="forbidden")
    assert "'alice'" in message
    assert "admin = true" in message
    for key in ("admin", "operator"):
        allowed = await http.post(path, json=MANAGING[path], headers=bearer(key))
        # Some of them name what is not there.
        assert allowed.status_code in {200, 202, 400, 404}


async def test_ollama_s_pull_is_refused_only_where_there_is_something_to_pull(
    http: httpx.AsyncClient,
) -> None:
    async def pull(model: str, key: str) -> httpx.Response:
        body = {"model": model, "stream": False}
        return await http.post("/api/pull", json=body, headers=bearer(key))

    assert (await pull("test", "user")).json() == {"status": "success"}
    refused = await pull("other", "user")
    assert refused.status_code == 403
    assert refused.json()["error"].startswith("The key 'alice' may not pull")


async def test_any_key_may_ask_models_and_see_what_there_is(http: httpx.AsyncClient) -> None:
    assert (await http.post(CHAT, json=chat_body(), headers=bearer("user"))).status_code == 200
    for path in ("/v1/models", "/v1/catalog", "/v1/pulls", "/lora-adapters"):
        assert (await http.get(path, headers=bearer("user"))).status_code == 200

"""What clients ask Ollama before they speak OpenAI's API."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.api.wire import assert_error


async def test_the_version_is_one_that_has_responses(http: httpx.AsyncClient) -> None:
    version = (await http.get("/api/version")).json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 13, 4)


async def test_usable_models_are_listed_under_each_of_their_names(http: httpx.AsyncClient) -> None:
    models = (await http.get("/api/tags")).json()["models"]
    assert [model["name"] for model in models] == ["test", "alias"]
    for model in models:
        assert model["model"] == model["name"]
        assert model["details"]["format"] == "gguf"
        assert model["details"]["quantization_level"]
        assert model["size"] > 0


@pytest.mark.parametrize("name", ["test", "alias"])
@pytest.mark.parametrize("field", ["model", "name"])
async def test_a_model_that_is_here_needs_no_download(
    http: httpx.AsyncClient, field: str, name: str
) -> None:
    response = await http.post("/api/pull", json={field: name, "insecure": False})
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in response.text.splitlines()] == [{"status": "success"}]


async def test_a_server_that_pulls_nothing_says_so(http: httpx.AsyncClient) -> None:
    streamed = await http.post("/api/pull", json={"model": "gpt-oss:20b", "stream": True})
    whole = await http.post("/api/pull", json={"model": "gpt-oss:20b", "stream": False})
    assert (streamed.status_code, whole.status_code) == (200, 404)
    assert json.loads(streamed.text) == whole.json()
    assert "'gpt-oss:20b'" in whole.json()["error"]


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}])
async def test_a_pull_of_nothing_finds_nothing(
    http: httpx.AsyncClient, body: dict[str, object]
) -> None:
    response = await http.post("/api/pull", json={**body, "stream": False})
    assert response.status_code == 404


async def test_a_bad_pull_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.post("/api/pull", json={"model": 5})
    assert_error(response, 400, param="model")

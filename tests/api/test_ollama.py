"""What clients ask Ollama before they speak OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

Connect = Callable[..., httpx.AsyncClient]


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


@pytest.mark.parametrize("stream", [{}, {"stream": True}, {"stream": False}])
@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": "", "name": ""}])
async def test_a_pull_of_nothing_is_refused(
    http: httpx.AsyncClient, body: dict[str, object], stream: dict[str, object]
) -> None:
    response = await http.post("/api/pull", json=body | stream)
    assert response.status_code == 400
    assert response.json() == {"error": "model: A model must be named."}


async def test_a_bad_pull_is_refused_as_ollama_words_errors(http: httpx.AsyncClient) -> None:
    response = await http.post("/api/pull", json={"model": 5})
    assert response.status_code == 400
    assert response.json().keys() == {"error"}
    assert response.json()["error"].startswith("model")


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain", "a/b"])
async def test_a_pull_is_json_whatever_its_type_says(
    http: httpx.AsyncClient, kind: str | None
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    body = b'{"model": "test", "stream": false}'
    response = await http.post("/api/pull", content=body, headers=headers)
    assert (response.status_code, response.json()) == (200, {"status": "success"})
    foreign = {**headers, "origin": "https://evil.example"}
    refused = await http.post("/api/pull", content=body, headers=foreign)
    assert refused.status_code == 403
    assert "cors_origins" in refused.json()["error"]


async def test_errors_below_ollama_s_paths_are_one_text(connect: Connect) -> None:
    http = connect(api_keys=["secret"])
    for method, path in (("GET", "/api/tags"), ("GET", "/api/version"), ("POST", "/api/pull")):
        refused = await http.request(method, path)
        assert refused.status_code == 401
        assert refused.json()["error"].startswith("No API key.")

"""Models, health, the template, metrics, and the description of it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import httpx
import pytest
from openai.types import Model

from server.core.errors import WorkerDied
from server.core.events import Accepted, Delta, Event, Failed, Finished
from server.core.model_info import ModelState
from server.core.request import ChatPrompt, GenerationRequest, TextPrompt
from tests.api.fakes import FakePool, usage
from tests.api.wire import CHAT, assert_error, chat, chat_body

Connect = Callable[..., httpx.AsyncClient]


async def test_models_are_listed_with_their_facts(http: httpx.AsyncClient) -> None:
    body = (await http.get("/v1/models")).json()
    assert body["object"] == "list"
    for model in body["data"]:
        Model.model_validate(model, strict=True)
    good = body["data"][0]
    assert good["kind"] == "instruct"
    assert good["kind_reasons"] == ["it has a chat template"]
    assert (good["context"], good["context_source"]) == (2048, "trained")
    assert good["template_source"] == "gguf"
    assert good["file"] == "test.gguf"
    assert good["aliases"] == ["alias"]


async def test_a_model_that_is_not_loaded_is_known_by_its_header(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    pool.state = "unloaded"
    for path in ("/v1/models/test", "/v1/models/alias"):
        model = (await http.get(path)).json()
        assert (model["state"], model["kind"], model["context"]) == ("unloaded", "instruct", 2048)
        assert model["kind_reasons"] == ["it has a chat template"]
        assert "capabilities" not in model
    listed = (await http.get("/v1/models")).json()
    assert listed["models"][0]["context_window"] == 2048
    version = {"anthropic-version": "2023-06-01"}
    page = (await http.get("/v1/models", headers=version)).json()
    assert page["data"][0]["max_input_tokens"] == 2048
    tags = (await http.get("/api/tags")).json()
    assert tags["models"][0]["details"]["family"] == "llama"


async def test_a_model_is_unloaded_and_loaded_on_request(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    gone = await http.post("/v1/models/unload", json={"model": "alias"})
    assert (gone.status_code, gone.json()["state"]) == (200, "unloaded")
    assert "requests" not in gone.json()
    pool.state = "ready"
    there = await http.post("/v1/models/load", json={"model": "test"})
    assert (there.status_code, there.json()["state"], there.json()["requests"]) == (200, "ready", 0)
    for path in ("/v1/models/load", "/v1/models/unload"):
        missing = await http.post(path, json={"model": "none"})
        assert_error(missing, 404, code="model_not_found", param="model")
        assert_error(await http.post(path, json={}), 400, param="model")
    broken = await http.post("/v1/models/load", json={"model": "org/broken"})
    assert_error(broken, 503, type_="server_error", code="model_unavailable")


async def test_a_broken_model_is_listed_with_its_reason(http: httpx.AsyncClient) -> None:
    broken = (await http.get("/v1/models")).json()["data"][1]
    assert (broken["state"], broken["reason"]) == ("failed", "the file is truncated")
    assert "kind" not in broken
    response = await http.post(CHAT, json=chat_body(model="org/broken"))
    message = assert_error(response, 503, type_="server_error", code="model_unavailable")
    assert "truncated" in message


@pytest.mark.parametrize("name", ["test", "alias", "org/broken"])
async def test_one_model_is_found_by_id_or_alias_with_slashes(
    http: httpx.AsyncClient, name: str
) -> None:
    response = await http.get(f"/v1/models/{name}")
    Model.model_validate(response.json(), strict=True)
    assert response.json()["id"] == {"alias": "test"}.get(name, name)


@pytest.mark.parametrize("name", ["nope", "%2e%2e/%2e%2e/etc/passwd", "a%00b", "x" * 10_000])
async def test_an_unknown_model_is_404(http: httpx.AsyncClient, name: str) -> None:
    response = await http.get(f"/v1/models/{name}")
    assert_error(response, 404, code="model_not_found", param="model")


async def test_paths_of_files_are_not_told(http: httpx.AsyncClient) -> None:
    assert "/models/" not in (await http.get("/v1/models")).text


@pytest.mark.parametrize(
    ("state", "status"), [("ready", 200), ("unloaded", 200), ("loading", 503), ("failed", 503)]
)
async def test_ready_is_503_while_the_model_loads_or_when_there_is_none(
    http: httpx.AsyncClient, pool: FakePool, state: str, status: int
) -> None:
    pool.state = state  # type: ignore[assignment]
    assert (await http.get("/health/ready")).status_code == status
    assert (await http.get("/health/live")).status_code == 200
    health = await http.get("/health")
    assert health.status_code == 200
    assert health.json()["models"][state] >= 1


@pytest.mark.parametrize(
    ("at_start", "status", "told"),
    [
        ({}, 200, ("ok", [], [])),
        ({"second": "loading"}, 503, ("loading", ["second"], [])),
        ({"second": "loading", "a third": "unloaded"}, 503, ("loading", ["a third", "second"], [])),
        ({"second": "failed"}, 503, ("failed", [], ["second"])),
        ({"second": "failed", "third": "loading"}, 503, ("failed", ["third"], ["second"])),
    ],
)
async def test_ready_is_503_until_all_models_named_at_start_are_and_says_which_are_not(
    http: httpx.AsyncClient,
    pool: FakePool,
    at_start: dict[str, ModelState],
    status: int,
    told: tuple[str, list[str], list[str]],
) -> None:
    pool.at_start = at_start
    ready, health = await http.get("/health/ready"), await http.get("/health")
    assert (ready.status_code, health.status_code) == (status, 200)
    assert ready.json() == health.json()
    body = ready.json()
    assert (body["status"], body["loading"], body["failed"]) == told
    assert body["models"]["ready"] == 1


async def test_a_template_can_be_applied_without_generating(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    body = {"model": "test", "messages": [{"role": "user", "content": "hi"}]}
    response = await http.post("/apply-template", json=body)
    assert response.json() == {
        "prompt": "<|user|>hi",
        "tokens": [1, 2],
        "segments": [
            {
                "text": "<|user|>",
                "tokens": [1],
                "control": True,
                "source": "template",
                "pieces": ["<|user|>"],
            },
            {"text": "hi", "tokens": [2], "control": False, "source": "user", "pieces": ["hi"]},
        ],
    }
    (prompt,) = pool.client.rendered
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == "hi"
    assert pool.client.requests == []


async def test_a_native_prompt_can_be_tokenised_without_a_template(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    response = await http.post("/apply-template", json={"model": "test", "prompt": "<|user|>hi"})
    assert response.status_code == 200
    assert pool.client.rendered == [TextPrompt(text="<|user|>hi")]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "hi"}], "prompt": "hi"}, "prompt"),
    ],
)
async def test_a_template_request_has_either_messages_or_a_prompt(
    http: httpx.AsyncClient, fields: dict[str, object], param: str
) -> None:
    response = await http.post("/apply-template", json={"model": "test", **fields})
    assert_error(response, 400, param=param)


async def test_metrics_tell_of_requests_tokens_latency_and_the_engine(
    http: httpx.AsyncClient,
) -> None:
    await chat(http)
    await http.post(CHAT, json=chat_body(model="nope"))
    await http.get("/no/such/path")
    text = (await http.get("/metrics")).text
    for line in (
        'dragoman_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0',
        'dragoman_requests_total{method="POST",route="/v1/chat/completions",status="404"} 1.0',
        'dragoman_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'dragoman_prompt_tokens_total{model="test"} 5.0',
        'dragoman_completion_tokens_total{model="test"} 3.0',
        'dragoman_ttft_seconds_count{model="test"} 1.0',
        'dragoman_itl_seconds_count{model="test"} 2.0',
        'dragoman_engine_active{model="test"} 1.0',
        'dragoman_engine_waiting{model="test"} 0.0',
        'dragoman_engine_kv_cells{model="test"} 2048.0',
        'dragoman_engine_kv_cells_used{model="test"} 0.0',
        'dragoman_engine_cached_tokens_total{model="test"} 7.0',
        'dragoman_engine_preemptions_total{model="test"} 0.0',
        'dragoman_worker_restarts_total{model="test"} 1.0',
        "dragoman_requests_in_flight 1.0",
    ):
        assert f"\n{line}\n" in text, line


async def test_the_prompt_of_several_answers_is_counted_once(http: httpx.AsyncClient) -> None:
    await chat(http, n=3)
    text = (await http.get("/metrics")).text
    assert 'dragoman_prompt_tokens_total{model="test"} 5.0' in text
    assert 'dragoman_completion_tokens_total{model="test"} 9.0' in text


async def test_tokens_of_answers_that_fail_or_are_cancelled_are_counted_too(
    connect: Connect,
) -> None:
    def unfinished(request: GenerationRequest) -> Iterable[Event | float]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Delta(id=1, index=0, text="a b", tokens=2)
        yield Failed(id=1, error=WorkerDied("It died.").info)

    http = connect(FakePool(unfinished))
    assert (await http.post(CHAT, json=chat_body())).status_code == 500
    text = (await http.get("/metrics")).text
    # Those of both workers that were asked.
    assert 'dragoman_prompt_tokens_total{model="test"} 10.0' in text
    assert 'dragoman_completion_tokens_total{model="test"} 4.0' in text


async def test_the_last_tokens_count_although_they_bring_no_text(connect: Connect) -> None:
    def silent_end(request: GenerationRequest) -> Iterable[Event | float]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Delta(id=1, index=0, text="a", tokens=1)
        yield Finished(id=1, index=0, reason="stop", usage=usage(3))

    http = connect(FakePool(silent_end))
    await chat(http)
    text = (await http.get("/metrics")).text
    assert 'dragoman_completion_tokens_total{model="test"} 3.0' in text


async def test_the_description_has_the_bodies_and_no_422(http: httpx.AsyncClient) -> None:
    description = (await http.get("/openapi.json")).json()
    operation = description["paths"][CHAT]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].removeprefix("#/components/schemas/")
    assert "messages" in description["components"]["schemas"][name]["required"]
    assert "422" not in str(description["paths"])
    assert "HTTPValidationError" not in description["components"]["schemas"]


async def test_every_reference_of_the_description_leads_somewhere(http: httpx.AsyncClient) -> None:
    response = await http.get("/openapi.json")
    schemas = response.json()["components"]["schemas"]
    references = {part.split('"')[0] for part in response.text.split("#/components/schemas/")[1:]}
    assert references <= schemas.keys()

"""``POST /v1/embeddings`` over the fake pool."""

from __future__ import annotations

import base64
import math
import struct
import typing
from typing import Any

import httpx
import msgspec
import openai
import pytest
from openai.types import CreateEmbeddingResponse, embedding_create_params

from server.api.openai.schemas.embeddings import MAX_INPUTS, EmbeddingRequest
from server.core.embeddings import Reading
from server.core.errors import ContextLengthExceeded, InvalidRequest
from server.core.events import Failed
from server.core.model_info import EmbeddingInfo
from tests.api.fakes import CONTEXT, DIMENSIONS, FakePool
from tests.api.serving import serving
from tests.api.wire import CHAT, COMPLETIONS, assert_error, chat_body, completion_body

EMBEDDINGS = "/v1/embeddings"


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "test", "input": "hi", **fields}


async def embed(http: httpx.AsyncClient, **fields: Any) -> CreateEmbeddingResponse:
    """The answer, valid in strict mode."""
    response = await http.post(EMBEDDINGS, json=body(**fields))
    assert response.status_code == 200, response.text
    return CreateEmbeddingResponse.model_validate(response.json(), strict=True)


def expected(length: int, dimensions: int = DIMENSIONS) -> list[float]:
    numbers = [float(length), *[1.0] * (dimensions - 1)]
    return [number / math.hypot(*numbers) for number in numbers]


async def test_a_text_is_embedded(http: httpx.AsyncClient) -> None:
    answer = await embed(http, input="hello")
    (item,) = answer.data
    assert item.embedding == pytest.approx(expected(5))
    assert (answer.model, item.index) == ("test", 0)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (5, 5)


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("abc", ["abc"]),
        (["abc", "d"], ["abc", "d"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2, 3], [4]], [[1, 2, 3], [4]]),
    ],
)
async def test_every_form_of_input_is_understood(
    http: httpx.AsyncClient, pool: FakePool, given: object, inputs: list[object]
) -> None:
    answer = await embed(http, input=given)
    assert pool.client.embedded == inputs
    assert [item.index for item in answer.data] == list(range(len(inputs)))
    lengths = (3, 1)[: len(inputs)]
    for item, length in zip(answer.data, lengths, strict=True):
        assert item.embedding == pytest.approx(expected(length))


async def test_base64_holds_the_same_numbers(http: httpx.AsyncClient) -> None:
    floats = await embed(http, input=["abc", "d"])
    response = await http.post(EMBEDDINGS, json=body(input=["abc", "d"], encoding_format="base64"))
    assert len(floats.data) == 2
    for item, plain in zip(response.json()["data"], floats.data, strict=True):
        raw = base64.b64decode(item["embedding"], validate=True)
        assert list(struct.unpack(f"<{DIMENSIONS}f", raw)) == plain.embedding


async def test_dimensions_reach_the_model(http: httpx.AsyncClient) -> None:
    answer = await embed(http, dimensions=3)
    assert answer.data[0].embedding == pytest.approx(expected(2, 3))


async def test_the_model_is_named_by_its_id_not_the_alias(http: httpx.AsyncClient) -> None:
    assert (await embed(http, model="alias")).model == "test"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("", "input"),
        ([], "input"),
        (None, "input"),
        (7, "input"),
        ({"image": "a"}, "input"),
        (["a", ""], "input[1]"),
        ([[1], []], "input[1]"),
        (["a", 1], "input[1]"),
        ([1, "a"], "input[1]"),
        ([1, 1.5], "input[1]"),
        ([True], "input[0]"),
        ([-1], "input[0]"),
        ([[5], [2**63]], "input[1][0]"),
        (["a"] * (MAX_INPUTS + 1), "input"),
        ([[1]] * (MAX_INPUTS + 1), "input"),
    ],
)
async def test_a_wrong_input_is_refused(http: httpx.AsyncClient, given: object, param: str) -> None:
    assert_error(await http.post(EMBEDDINGS, json=body(input=given)), 400, param=param)


async def test_a_missing_input_is_named(http: httpx.AsyncClient) -> None:
    assert_error(await http.post(EMBEDDINGS, json={"model": "test"}), 400, param="input")


async def test_as_many_inputs_as_openai_takes_are_taken(http: httpx.AsyncClient) -> None:
    assert len((await embed(http, input=["a"] * MAX_INPUTS)).data) == MAX_INPUTS


@pytest.mark.parametrize(
    "fields",
    [
        {"encoding_format": "int8"},
        {"dimensions": 0},
        {"dimensions": -1},
        {"dimensions": 1.5},
        {"dimensions": "eight"},
        {"model": None},
    ],
)
async def test_a_wrong_parameter_is_refused(
    http: httpx.AsyncClient, fields: dict[str, object]
) -> None:
    (name,) = fields
    assert_error(await http.post(EMBEDDINGS, json=body(**fields)), 400, param=name)


async def test_an_unknown_parameter_is_named(http: httpx.AsyncClient) -> None:
    response = await http.post(EMBEDDINGS, json=body(wizardry=True, user=1))
    assert response.status_code == 200
    assert response.headers["x-dragoman-ignored"] == "user, wizardry"


def test_every_parameter_of_the_sdk_is_known() -> None:
    known = typing.get_type_hints(embedding_create_params.EmbeddingCreateParams)
    own = {"input_type", "instruction", "truncate", "truncate_prompt_tokens"}
    assert EmbeddingRequest.model_fields.keys() - own == known.keys()


async def test_what_has_no_effect_is_named_in_a_header(http: httpx.AsyncClient) -> None:
    response = await http.post(EMBEDDINGS, json=body(user="u"))
    assert response.headers["x-dragoman-ignored"] == "user"
    response = await http.post(EMBEDDINGS, json=body(user=None))
    assert "x-dragoman-ignored" not in response.headers


async def test_the_worker_s_refusal_reaches_the_client(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    pool.client.embedding_error = ContextLengthExceeded("limit 512, 600 tokens", at=("input", 0))
    response = await http.post(EMBEDDINGS, json=body())
    assert_error(response, 400, code="context_length_exceeded", param="input")


async def test_an_unknown_model_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.post(EMBEDDINGS, json=body(model="nope"))
    assert_error(response, 404, code="model_not_found", param="model")


@pytest.mark.parametrize(
    ("path", "request_body"), [(CHAT, chat_body()), (COMPLETIONS, completion_body())]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_only_embeds_does_not_generate(
    http: httpx.AsyncClient, pool: FakePool, path: str, request_body: dict[str, Any], stream: bool
) -> None:
    refusal = InvalidRequest("The model does not generate.", at=("model",))
    pool.client.script = lambda _: [Failed(id=1, error=refusal.info)]
    response = await http.post(path, json={**request_body, "stream": stream})
    assert "does not generate" in assert_error(response, 400, param="model")
    await embed(http)


async def test_the_model_s_page_tells_what_it_can_do(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    model = (await http.get("/v1/models/test")).json()
    assert model["generates"] is True
    facts = {
        "dimensions": DIMENSIONS,
        "pooling": "mean",
        "context": CONTEXT,
        "purposes": [],
        "instruction": False,
    }
    assert model["embedding"] == facts
    pool.state = "unloaded"
    assert "embedding" not in (await http.get("/v1/models/test")).json()


async def test_the_endpoint_is_described(http: httpx.AsyncClient) -> None:
    description = (await http.get("/openapi.json")).json()
    content = description["paths"][EMBEDDINGS]["post"]["requestBody"]["content"]
    assert content["application/json"]["schema"]["$ref"].endswith("/EmbeddingRequest")
    assert "EmbeddingRequest" in description["components"]["schemas"]


async def test_tokens_are_counted_in_the_metrics(http: httpx.AsyncClient) -> None:
    await embed(http, input="hello")
    metrics = (await http.get("/metrics")).text
    assert 'dragoman_prompt_tokens_total{model="test"} 5.0' in metrics


@pytest.mark.process
async def test_the_sdk_s_default_and_its_floats_agree(pool: FakePool) -> None:
    """By default it asks for base64."""
    async with serving(pool) as running:
        base_url = f"http://127.0.0.1:{running.port}/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key="key") as client:
            default = await client.embeddings.create(model="test", input=["abc", "d"])
            floats = await client.embeddings.create(
                model="test", input=["abc", "d"], encoding_format="float"
            )
    assert default == floats
    assert floats.data[1].embedding == pytest.approx(expected(1))


@pytest.fixture
def retrieval(pool: FakePool) -> FakePool:
    """The model knows what stands in front of queries and documents."""
    embedding = EmbeddingInfo(
        dimensions=DIMENSIONS,
        pooling="mean",
        context=CONTEXT,
        purposes=["query", "document"],
        instruction=True,
    )
    pool.client.info = msgspec.structs.replace(pool.client.info, embedding=embedding)
    return pool


@pytest.mark.parametrize(
    ("fields", "reading"),
    [
        ({}, Reading()),
        ({"input_type": "query"}, Reading(purpose="query")),
        ({"input_type": "search_document"}, Reading(purpose="document")),
        ({"input_type": "passage"}, Reading(purpose="document")),
        ({"task": "retrieval.query"}, Reading(purpose="query")),
        ({"task_type": "RETRIEVAL_DOCUMENT"}, Reading(purpose="document")),
        ({"prompt_name": "query"}, Reading(purpose="query")),
        ({"input_type": "query", "instruction": "i"}, Reading(purpose="query", instruction="i")),
        ({"truncate": True}, Reading(truncate="end")),
        ({"truncate": "END"}, Reading(truncate="end")),
        ({"truncate": "START"}, Reading(truncate="start")),
        ({"truncate": "NONE"}, Reading()),
        ({"truncate": False, "truncate_prompt_tokens": 5}, Reading(most=5)),
        ({"truncate_prompt_tokens": 5}, Reading(truncate="end", most=5)),
        ({"truncate_prompt_tokens": -1}, Reading(truncate="end")),
    ],
)
async def test_how_texts_are_read_reaches_the_model(
    http: httpx.AsyncClient, retrieval: FakePool, fields: dict[str, Any], reading: Reading
) -> None:
    response = await http.post(EMBEDDINGS, json=body(**fields))
    assert response.status_code == 200, response.text
    assert retrieval.client.reading == reading
    assert "x-dragoman-ignored" not in response.headers


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"input_type": "classification"}, "input_type"),
        ({"task": "separation"}, "task"),
        ({"input_type": "wizardry"}, "input_type"),
        ({"input_type": "none"}, None),
        ({"input_type": "query", "input": [1, 2]}, "input_type"),
        ({"input_type": "document", "instruction": "i"}, "instruction"),
        ({"instruction": "i"}, "instruction"),
    ],
)
@pytest.mark.usefixtures("retrieval")
async def test_a_purpose_that_changes_nothing_is_named(
    http: httpx.AsyncClient, fields: dict[str, Any], ignored: str | None
) -> None:
    response = await http.post(EMBEDDINGS, json=body(**fields))
    assert response.headers.get("x-dragoman-ignored") == ignored


async def test_inputs_that_were_cut_are_named(http: httpx.AsyncClient) -> None:
    given = ["a" * 11, "a", "a" * 11]
    response = await http.post(EMBEDDINGS, json=body(input=given, truncate=True))
    assert response.headers["x-dragoman-truncated"] == "input[0], input[2]"
    response = await http.post(EMBEDDINGS, json=body(input=given))
    assert "x-dragoman-truncated" not in response.headers


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"truncate": "MIDDLE"}, "truncate"),
        ({"truncate": 5}, "truncate"),
        ({"input_type": 5}, "input_type"),
        ({"task": 5}, "task"),
        ({"task": "query", "input_type": "document"}, "input_type"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    ],
)
async def test_a_wrong_way_to_read_is_refused(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    assert_error(await http.post(EMBEDDINGS, json=body(**fields)), 400, param=param)

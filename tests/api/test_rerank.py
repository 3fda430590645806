"""Reranking and scoring in every form, over the fake pool."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from server.core.errors import QueueFull
from server.core.model_info import RankingInfo
from server.core.ranking import RankingRequest
from tests.api.fakes import FakePool, model_info

DOCUMENTS = ["aa", "aaaaaa", "aaaa"]
BEST = [1, 2, 0]
SIGMOIDS = [1 / (1 + math.exp(-len(DOCUMENTS[place]))) for place in BEST]
Connect = Callable[..., httpx.AsyncClient]


def ranking_pool(*, instruction: bool = True) -> FakePool:
    pool = FakePool()
    ranking = RankingInfo(context=512, instruction=instruction)
    pool.client.info = msgspec.structs.replace(
        model_info("test"), generates=False, embedding=None, ranking=ranking
    )
    return pool


@pytest.fixture
def pool() -> FakePool:
    return ranking_pool()


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "test", "query": "what", "documents": DOCUMENTS, **fields}


def asked(pool: FakePool) -> RankingRequest:
    assert pool.client.ranked is not None
    return pool.client.ranked


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/reranking", "/rerank", "/reranking"])
async def test_the_answer_is_jinas_and_coheres_in_one(http: httpx.AsyncClient, path: str) -> None:
    response = await http.post(path, json=body())
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["id"].startswith("rerank-")
    assert (answer["object"], answer["model"]) == ("list", "test")
    assert [result["index"] for result in answer["results"]] == BEST
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == pytest.approx(SIGMOIDS)
    assert answer["results"][0]["document"] == {"text": "aaaaaa"}
    assert answer["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert answer["meta"] == {
        "api_version": {"version": "1"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": 12},
    }


async def test_the_second_version_of_coheres_has_no_documents(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/v2/rerank", json=body(top_n=2, max_tokens_per_doc=7))).json()
    assert [result.keys() for result in answer["results"]] == [{"index", "relevance_score"}] * 2
    assert answer["meta"]["api_version"] == {"version": "2"}
    shown = (await http.post("/v2/rerank", json=body(return_documents=True))).json()
    assert shown["results"][0]["document"] == {"text": "aaaaaa"}


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
async def test_texts_are_answered_as_tei_does(http: httpx.AsyncClient, path: str) -> None:
    answer = (await http.post(path, json={"query": "what", "texts": DOCUMENTS})).json()
    assert [each["index"] for each in answer] == BEST
    assert [each["score"] for each in answer] == pytest.approx(SIGMOIDS)
    assert answer[0].keys() == {"index", "score"}
    fields = {"raw_scores": True, "return_text": True, "truncate": True}
    answer = (await http.post(path, json={"query": "what", "texts": DOCUMENTS, **fields})).json()
    assert answer[0] == {"index": 1, "score": 6.0, "text": "aaaaaa"}


async def test_scores_far_from_zero_have_a_probability(http: httpx.AsyncClient) -> None:
    from server.api.ranking.scoring import scale

    assert scale(-1e9, raw=False) == 0
    assert scale(1e9, raw=False) == 1
    assert scale(-1e9, raw=True) == -1e9


async def test_documents_may_be_objects(http: httpx.AsyncClient, pool: FakePool) -> None:
    documents = [{"text": "a", "title": "T", "year": 7}, "b"]
    response = await http.post("/v1/rerank", json=body(documents=documents))
    assert asked(pool).documents == ["a", "b"]
    assert response.headers["x-dragoman-ignored"] == "documents.title, documents.year"
    assert response.json()["results"][0]["document"] == documents[0]
    fields = {"documents": documents[:1], "rank_fields": ["title", "year", "none", "text"]}
    response = await http.post("/v1/rerank", json=body(**fields))
    assert asked(pool).documents == ["title: T\nyear: 7\ntext: a"]
    assert "x-dragoman-ignored" not in response.headers


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"truncate": True}),
        ({"truncate": False}, {"truncate": False}),
        ({"truncation": False}, {"truncate": False}),
        ({"max_tokens_per_doc": 9}, {"most_document": 9}),
        ({"max_doc_length": 9}, {"most_document": 9}),
        ({"truncate_prompt_tokens": 9}, {"most": 9}),
        ({"truncate_prompt_tokens": -1}, {"most": None}),
        ({"instruction": "find"}, {"instruction": "find"}),
        ({"documents": None, "texts": ["a"]}, {"truncate": False, "documents": ["a"]}),
        ({"documents": None, "texts": ["a"], "truncate": True}, {"truncate": True}),
    ],
)
async def test_every_field_reaches_the_model(
    http: httpx.AsyncClient, pool: FakePool, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    response = await http.post("/v1/rerank", json=body(**fields))
    assert response.status_code == 200, response.text
    assert {name: getattr(asked(pool), name) for name in expected} == expected
    assert "x-dragoman-ignored" not in response.headers


async def test_what_was_cut_is_named(http: httpx.AsyncClient) -> None:
    documents = ["a" * 11, "a", "a" * 11]
    response = await http.post("/v1/rerank", json=body(documents=documents))
    assert response.headers["x-dragoman-truncated"] == "documents[0], documents[2]"
    response = await http.post("/v1/rerank", json=body(documents=["a" * 11] * 200))
    assert response.headers["x-dragoman-truncated"].endswith("documents[99], and 100 more")
    response = await http.post("/rerank", json={"query": "q", "texts": documents})
    assert response.status_code == 400
    assert response.json() == {"error": "It is too long.", "error_type": "Validation"}


async def test_what_has_no_effect_is_named(connect: Connect) -> None:
    fields = {"instruction": "find", "wizardry": 1, "truncation_direction": "Left", "priority": 0}
    async with connect(ranking_pool(instruction=False)) as http:
        response = await http.post("/v1/rerank", json=body(**fields))
    named = response.headers["x-dragoman-ignored"]
    assert named == "wizardry, priority, truncation_direction, instruction"


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": ["a"]}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": [7]}, "documents[0]"),
        ({"documents": ["a", {"image": "http://x"}]}, "documents[1].text"),
        ({"documents": [{"text": 7}]}, "documents[0].text"),
        ({"documents": [{"text": "a"}], "rank_fields": ["b"]}, "documents[0]"),
        ({"texts": ["a"]}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": True}, "top_n"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 1, "top_n": 2}, "top_n"),
        ({"raw_scores": "no"}, "raw_scores"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
    ],
)
async def test_a_wrong_body_is_refused_for_every_client(
    http: httpx.AsyncClient, path: str, fields: dict[str, Any], param: str
) -> None:
    response = await http.post(path, json=body(**fields))
    assert response.status_code == 400, response.text
    error = response.json()
    assert error.keys() == {"message", "detail", "error"}
    assert error["message"] == error["detail"] == error["error"]["message"]
    assert error["error"]["param"] == param


async def test_tei_has_errors_of_its_own(http: httpx.AsyncClient, pool: FakePool) -> None:
    response = await http.post("/rerank", json={"query": "q", "texts": []})
    assert response.status_code == 400
    assert response.json().keys() == {"error", "error_type"}
    assert "texts" in response.json()["error"]

    async def full(_: RankingRequest) -> Any:
        raise QueueFull("It is full.", retry_after=2)

    pool.client.rank = full  # type: ignore[method-assign, assignment]
    response = await http.post("/rerank", json={"query": "q", "texts": ["a"]})
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    assert response.json() == {"error": "It is full.", "error_type": "Overloaded"}


async def test_a_key_that_is_wrong_is_told_in_the_form_of_the_path(connect: Connect) -> None:
    async with connect(ranking_pool(), api_keys=["right"]) as http:
        assert (await http.post("/v1/rerank", json=body())).json()["detail"]
        assert (await http.post("/rerank", json=body())).json()["error_type"] == "Validation"


async def test_a_model_of_another_kind_is_refused_unloaded(connect: Connect) -> None:
    pool = FakePool()
    async with connect(pool) as http:
        for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
            response = await http.post(path, json=body())
            assert response.status_code == 400
            assert "does not rank texts" in response.text
        scores = await http.post("/v1/score", json={"model": "test", "text_1": "a", "text_2": "b"})
        unnamed = await http.post("/rerank", json={"query": "q", "texts": ["a"]})
    assert scores.json()["error"]["param"] == "model"
    assert unnamed.status_code == 400
    assert "no model here ranks texts" in unnamed.json()["error"]
    assert pool.client.ranked is None


@pytest.mark.parametrize(
    ("first", "second", "queries", "documents"),
    [
        ("a", "b", ["a"], ["b"]),
        ("a", ["b", "cc"], ["a"], ["b", "cc"]),
        (["a"], ["b", "cc"], ["a"], ["b", "cc"]),
        (["a", "d"], ["b", "cc"], ["a", "d"], ["b", "cc"]),
    ],
)
@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")]
)
async def test_scores_of_one_with_many_and_pair_by_pair(
    http: httpx.AsyncClient,
    pool: FakePool,
    first: object,
    second: object,
    queries: list[str],
    documents: list[str],
    names: tuple[str, str],
) -> None:
    response = await http.post(
        "/v1/score", json={"model": "test", **dict(zip(names, (first, second), strict=True))}
    )
    assert response.status_code == 200, response.text
    assert (asked(pool).queries, asked(pool).documents) == (queries, documents)
    answer = response.json()
    assert [item["index"] for item in answer["data"]] == list(range(len(documents)))
    expected = [1 / (1 + math.exp(-len(text))) for text in documents]
    assert [item["score"] for item in answer["data"]] == pytest.approx(expected)
    assert answer["data"][0]["object"] == "score"
    assert answer["usage"]["completion_tokens"] == 0
    assert "x-dragoman-ignored" not in response.headers


@pytest.mark.parametrize("raw", [{"raw_scores": True}, {"use_activation": False}])
async def test_scores_may_be_logits(http: httpx.AsyncClient, raw: dict[str, bool]) -> None:
    response = await http.post("/v1/score", json={"text_1": "a", "text_2": "bbb", **raw})
    assert response.json()["data"][0]["score"] == 3.0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
        ({"text_1": ["a", "b"], "text_2": "c"}, "text_1"),
        ({"text_1": [], "text_2": "c"}, "text_1"),
        ({"text_1": "a"}, "text_2"),
        ({"queries": ["a", "b"], "documents": ["a"] * 3}, "queries"),
        ({"text_1": "a", "text_2": ["b", "b" * 11]}, "text_2[1]"),
        ({"text_1": "a", "text_2": "b" * 11}, "text_2"),
        ({"text_1": "a", "items": ["b", "b" * 11]}, "items[1]"),
        ({"text_1": "a", "text_2": "b", "data_2": "c"}, "data_2"),
    ],
)
async def test_wrong_pairs_are_refused(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    response = await http.post("/v1/score", json={"model": "test", **fields})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    whole = await http.post("/v1/score", json={"text_1": "a", "text_2": "b", "items": None})
    assert whole.status_code == 200


async def test_models_say_whether_they_rank(http: httpx.AsyncClient) -> None:
    model = (await http.get("/v1/models/test")).json()
    assert model["ranks"]
    assert model["ranking"] == {"context": 512, "instruction": True}
    assert not model["generates"]


async def test_tokens_of_rankings_are_counted(http: httpx.AsyncClient) -> None:
    await http.post("/v1/rerank", json=body())
    metrics = (await http.get("/metrics")).text
    assert 'dragoman_prompt_tokens_total{model="test"} 12.0' in metrics

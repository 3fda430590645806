"""Texts as tokens and back, and counts of tokens, over the fake pool."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.core.errors import InvalidRequest
from server.core.tokens import TokenizeRequest, Tokens
from tests.api.fakes import FakePool
from tests.api.wire import assert_error, chat_body, completion_body

TOKENS = [*b"hi"]


async def tokenize(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await http.post("/tokenize", json={"model": "test", **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_a_text_becomes_tokens(http: httpx.AsyncClient, pool: FakePool) -> None:
    answer = await tokenize(http, content="hi")
    assert answer == {"tokens": TOKENS, "count": 2, "max_model_len": 2048}
    assert pool.client.tokenized == TokenizeRequest(parts=["hi"], pieces=False)


async def test_texts_and_tokens_may_be_mixed(http: httpx.AsyncClient, pool: FakePool) -> None:
    await tokenize(http, content=["a", 5, "b"], add_special=True, parse_special=False)
    wanted = TokenizeRequest(
        parts=["a", 5, "b"], add_special=True, parse_special=False, pieces=False
    )
    assert pool.client.tokenized == wanted


async def test_pieces_are_texts_or_bytes_of_a_part_of_a_character(http: httpx.AsyncClient) -> None:
    answer = await tokenize(http, content="aé", with_pieces=True)
    assert answer["tokens"] == [
        {"id": 97, "piece": "a"},
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xA9, "piece": [0xA9]},
    ]


@pytest.mark.parametrize(
    ("content", "special", "offsets"),
    [
        ("aéb", False, [[0, 1], [1, 2], [1, 2], [2, 3]]),
        ("s", True, [[0, 0], [0, 1]]),
        ("", True, [[0, 0]]),
        (["a", 5, "b"], False, [[0, 1], [1, 4], [4, 5]]),
    ],
)
async def test_offsets_count_characters(
    http: httpx.AsyncClient, content: object, special: bool, offsets: list[list[int]]
) -> None:
    answer = await tokenize(http, content=content, with_offsets=True, add_special=special)
    assert answer["offsets"] == offsets
    # In Python, True equals 1.
    assert {type(number) for pair in answer["offsets"] for number in pair} <= {int}


async def test_offsets_that_nothing_is_known_of_are_said_to_be_left_out(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    async def lower(_: TokenizeRequest) -> Tokens:
        return Tokens(ids=[1], pieces=[b"a"])

    pool.client.tokenize = lower  # type: ignore[method-assign, assignment]
    response = await http.post("/tokenize", json={"content": "A", "with_offsets": True})
    assert response.json()["offsets"] is None
    assert response.headers["x-dragoman-ignored"] == "with_offsets"


async def test_vllms_body_has_vllms_answer(http: httpx.AsyncClient, pool: FakePool) -> None:
    answer = await tokenize(http, prompt="hi", return_token_strs=True)
    assert answer == {
        "tokens": [999, *TOKENS],
        "count": 3,
        "max_model_len": 2048,
        "token_strs": ["<s>", "h", "i"],
    }
    answer = await tokenize(http, prompt="hi", add_special_tokens=False)
    assert answer["tokens"] == TOKENS


async def test_tokens_become_a_text(http: httpx.AsyncClient) -> None:
    response = await http.post("/detokenize", json={"tokens": [5, 7]})
    assert response.json() == {"content": "<5><7>", "prompt": "<5><7>"}


async def test_parts_of_characters_are_also_shown_as_bytes(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    async def part(_: TokenizeRequest) -> Tokens:
        return Tokens(ids=[1], pieces=[b"a\xc3"])

    pool.client.tokenize = part  # type: ignore[method-assign, assignment]
    response = await http.post("/detokenize", json={"tokens": [1]})
    text = "a\N{REPLACEMENT CHARACTER}"
    assert response.json() == {"content": text, "prompt": text, "bytes": [0x61, 0xC3]}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/tokenize", {"content": ["a", -1]}, "content[1]"),
        ("/tokenize", {"content": ["a", 1.5]}, "content[1]"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": 5}, "add_special_tokens"),
        ("/tokenize", {"content": "a", "with_pieces": "yes"}, "with_pieces"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [2**40]}, "tokens[0]"),
        ("/detokenize", {"tokens": [True]}, "tokens[0]"),
        ("/detokenize", {"tokens": [1], "model": "none"}, "model"),
    ],
)
async def test_a_wrong_body_is_refused(
    http: httpx.AsyncClient, path: str, fields: dict[str, Any], param: str
) -> None:
    response = await http.post(path, json=fields)
    status = 404 if fields.get("model") == "none" else 400
    code = "model_not_found" if status == 404 else None
    assert_error(response, status, param=param, code=code)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {"content": ["a", 7]}, "content[1]"),
        ("/tokenize", {"content": "a"}, "content"),
        ("/tokenize", {"prompt": ["a", 7]}, "prompt[1]"),
        ("/detokenize", {"tokens": [1, 7]}, "tokens[1]"),
    ],
)
async def test_a_token_outside_the_vocabulary_is_found_in_the_body(
    http: httpx.AsyncClient, pool: FakePool, path: str, body: dict[str, Any], param: str
) -> None:
    async def refuse(_: TokenizeRequest) -> Tokens:
        raise InvalidRequest("No.", at=("parts", 1))

    pool.client.tokenize = refuse  # type: ignore[method-assign, assignment]
    assert_error(await http.post(path, json=body), 400, param=param)


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/v1/chat/completions", chat_body(max_tokens=5), 2),
        ("/v1/completions", completion_body(prompt=["a", "b", "c"]), 6),
    ],
)
async def test_tokens_of_prompts_are_counted_below_each_path(
    http: httpx.AsyncClient, pool: FakePool, path: str, body: dict[str, Any], count: int
) -> None:
    response = await http.post(f"{path}/input_tokens", json={**body, "wizardry": 1})
    assert response.json() == {"object": "response.input_tokens", "input_tokens": count}
    assert response.headers["x-dragoman-ignored"] == "wizardry"
    assert pool.client.requests == []
    assert (await http.post(f"{path}/input_tokens", json={})).status_code == 400

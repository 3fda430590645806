"""Parameters under the names and with the values that other servers know."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from server.core.reply_format import Reasoning, ReplyFormat
from server.core.request import ChatPrompt, Constraint, GenerationRequest
from server.core.sampling import INT32_MAX
from tests.api.fakes import CONTEXT, FakePool
from tests.api.wire import CHAT, COMPLETIONS, assert_error, chat_body, completion_body

THINKS = ReplyFormat(name="thinks", reasoning=Reasoning(start="<think>", end="</think>"))

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
GBNF = 'root ::= "a"'
LARK = 'start: "a"'


@pytest.fixture
def pool() -> FakePool:
    return FakePool(reply_format=THINKS)


def body_of(path: str, **fields: Any) -> dict[str, Any]:
    match path:
        case "/v1/completions":
            return completion_body(**fields)
        case "/v1/responses":
            return {"model": "test", "input": "hi", **fields}
        case "/v1/messages":
            return chat_body(**{"max_tokens": 5, **fields})
        case _:
            return chat_body(**fields)


async def canonical(
    http: httpx.AsyncClient, pool: FakePool, path: str, fields: dict[str, Any]
) -> GenerationRequest:
    """What becomes of a request with ``fields``, none of which is ignored."""
    response = await http.post(path, json=body_of(path, **fields))
    assert response.status_code == 200, response.text
    assert "x-dragoman-ignored" not in response.headers
    return pool.client.requests[-1]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    ("sent", "name", "value"),
    [
        ({"repetition_penalty": 1.5}, "repeat_penalty", 1.5),
        ({"repeat_penalty": 1.5}, "repeat_penalty", 1.5),
        ({"options": {"repeat_penalty": 1.5}}, "repeat_penalty", 1.5),
        ({"extra_body": {"min_p": 0.5}}, "min_p", 0.5),
        ({"typical": 0.5}, "typical_p", 0.5),
        ({"mirostat_mode": 2}, "mirostat", 2),
        ({"random_seed": 7}, "seed", 7),
        ({"seed": -1}, "seed", None),
        ({"options": {"seed": -1}}, "seed", None),
        ({"seed": "-1"}, "seed", None),
        ({"seed": 7.0}, "seed", 7),
        ({"top_k": -1}, "top_k", -1),
        ({"top_k": 40.0}, "top_k", 40),
    ],
)
async def test_sampling_has_the_names_and_values_of_other_servers(
    http: httpx.AsyncClient,
    pool: FakePool,
    path: str,
    sent: dict[str, Any],
    name: str,
    value: object,
) -> None:
    request = await canonical(http, pool, path, sent)
    assert getattr(request.sampling, name) == value


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    ("sent", "name", "value"),
    [
        ({"min_tokens": 3}, "min_tokens", 3),
        ({"min_new_tokens": 3}, "min_tokens", 3),
        ({"stop_token_ids": [5, 6]}, "stop_token_ids", [5, 6]),
        ({"ignore_eos": True}, "ignore_eos", True),
        ({"cache_prompt": True}, "ignore_eos", False),
        ({"stop": list("abcdefgh")}, "stop", list("abcdefgh")),
        ({"stop_sequences": ["a"]}, "stop", ["a"]),
        ({"options": {"stop": ["a"]}}, "stop", ["a"]),
        ({"until": ["\n\n", "<|endoftext|>"]}, "stop", ["\n\n", "<|endoftext|>"]),
        ({"stop": ""}, "stop", []),
        ({"stop": []}, "stop", []),
        ({"stop": None}, "stop", []),
        ({"stop": ["a", "", "b"]}, "stop", ["a", "b"]),
    ],
)
async def test_the_end_of_an_answer_has_them_too(
    http: httpx.AsyncClient,
    pool: FakePool,
    path: str,
    sent: dict[str, Any],
    name: str,
    value: object,
) -> None:
    assert getattr(await canonical(http, pool, path, sent), name) == value


LIMIT_NAMES = [
    "max_tokens",
    "max_completion_tokens",
    "max_new_tokens",
    "max_output_tokens",
    "n_predict",
    "num_predict",
]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
@pytest.mark.parametrize("name", LIMIT_NAMES)
async def test_the_limit_of_tokens_has_many_names(
    http: httpx.AsyncClient, pool: FakePool, path: str, name: str
) -> None:
    for sent in ({name: 7}, {"options": {name: 7.0}}):
        assert (await canonical(http, pool, path, sent)).max_tokens == 7
    for unlimited in (-1, "-1"):
        assert (await canonical(http, pool, path, {name: unlimited})).max_tokens == INT32_MAX


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    ("sent", "kind", "content"),
    [
        ({"guided_json": SCHEMA}, "json_schema", SCHEMA),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", SCHEMA),
        ({"json_schema": SCHEMA}, "json_schema", SCHEMA),
        ({"json_schema": json.dumps(SCHEMA)}, "json_schema", SCHEMA),
        ({"format": SCHEMA}, "json_schema", SCHEMA),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", SCHEMA),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, "json_schema", SCHEMA),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, "json_schema", SCHEMA),
        ({"response_format": {"type": "json", "value": SCHEMA}}, "json_schema", SCHEMA),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            "json_schema",
            SCHEMA,
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
            "json_schema",
            SCHEMA,
        ),
        ({"response_format": "json_object"}, "json_object", ""),
        ({"grammar": {"type": "json", "value": SCHEMA}}, "json_schema", SCHEMA),
        ({"format": "json"}, "json_object", ""),
        ({"response_format": {"type": "json_object"}}, "json_object", ""),
        ({"structured_outputs": {"json_object": True}}, "json_object", ""),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"structured_outputs": {"regex": "a+"}}, "regex", "a+"),
        ({"response_format": {"type": "regex", "pattern": "a+"}}, "regex", "a+"),
        ({"grammar": {"type": "regex", "value": "a+"}}, "regex", "a+"),
        ({"guided_choice": ["a", "b"]}, "choice", ["a", "b"]),
        ({"structured_outputs": {"choice": ["a", "b"]}}, "choice", ["a", "b"]),
        ({"guided_grammar": GBNF}, "gbnf", GBNF),
        ({"guided_grammar": LARK}, "lark", LARK),
        ({"structured_outputs": {"grammar": LARK}}, "lark", LARK),
        ({"ebnf": GBNF}, "gbnf", GBNF),
        ({"grammar": GBNF}, "gbnf", GBNF),
    ],
)
async def test_constraints_have_the_names_of_other_servers(
    http: httpx.AsyncClient,
    pool: FakePool,
    path: str,
    sent: dict[str, Any],
    kind: str,
    content: object,
) -> None:
    constraint = (await canonical(http, pool, path, sent)).constraint
    assert isinstance(constraint, Constraint)
    assert constraint.kind == kind
    stated = constraint.body
    assert (json.loads(stated) if kind in {"json_schema", "choice"} else stated) == content


@pytest.mark.parametrize(
    ("sent", "variables", "budget"),
    [
        ({"think": True}, {"enable_thinking": True}, None),
        ({"think": False}, {"enable_thinking": False}, None),
        ({"think": "low"}, {"reasoning_effort": "low"}, None),
        ({"thinking": False}, {"enable_thinking": False}, None),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}, None),
        ({"thinking": {"type": "adaptive"}}, {"enable_thinking": True}, None),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 9.0}},
            {"enable_thinking": True},
            9,
        ),
        ({"reasoning": {"effort": "high"}}, {"reasoning_effort": "high"}, None),
        ({"reasoning": {"enabled": False}}, {"enable_thinking": False}, None),
        ({"reasoning": {"max_tokens": 9}}, {}, 9),
        ({"reasoning_effort": "low", "think": "low"}, {"reasoning_effort": "low"}, None),
        ({"reasoning_budget": -1}, {}, None),
        ({"reasoning_budget": 0}, {"enable_thinking": False}, 0),
        *(
            ({name: 9}, {}, 9)
            for name in (
                "reasoning_budget",
                "thinking_budget",
                "thinking_budget_tokens",
                "thinking_token_budget",
                "max_thinking_tokens",
            )
        ),
    ],
)
async def test_thinking_has_them_in_chats(
    http: httpx.AsyncClient,
    pool: FakePool,
    sent: dict[str, Any],
    variables: dict[str, Any],
    budget: int | None,
) -> None:
    request = await canonical(http, pool, CHAT, sent)
    assert isinstance(request.prompt, ChatPrompt)
    assert request.prompt.template_kwargs == variables
    assert request.reasoning_budget == budget


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 9}}),
        (MESSAGES, {"reasoning_budget": 9}),
        (RESPONSES, {"reasoning": {"max_tokens": 9}}),
        (RESPONSES, {"thinking_budget": 9}),
    ],
)
async def test_other_families_have_a_budget_of_reasoning(
    http: httpx.AsyncClient, pool: FakePool, path: str, sent: dict[str, Any]
) -> None:
    assert (await canonical(http, pool, path, sent)).reasoning_budget == 9


@pytest.mark.parametrize(
    ("path", "sent", "named"),
    [
        (CHAT, {"reasoning_budget": 9}, "reasoning_budget"),
        (CHAT, {"options": {"thinking_budget": 9}}, "options.thinking_budget"),
        (MESSAGES, {"thinking_budget": 9}, "thinking_budget"),
        (RESPONSES, {"reasoning": {"max_tokens": 9}}, "reasoning.max_tokens"),
        (RESPONSES, {"reasoning_budget": 9}, "reasoning_budget"),
        (CHAT, {"reasoning_budget": -1}, None),
    ],
)
async def test_a_budget_is_named_where_a_model_does_not_reason(
    connect: Callable[..., httpx.AsyncClient], path: str, sent: dict[str, Any], named: str | None
) -> None:
    response = await connect().post(path, json=body_of(path, **sent))
    assert response.status_code == 200, response.text
    assert response.headers.get("x-dragoman-ignored") == named


@pytest.mark.parametrize(
    ("sent", "names"),
    [
        ({"max_tokens": 5, "n_predict": 6}, ("max_tokens", "n_predict")),
        (
            {"temperature": 0.1, "options": {"temperature": 1}},
            ("temperature", "options.temperature"),
        ),
        ({"repeat_penalty": 1, "repetition_penalty": 2}, ("repeat_penalty", "repetition_penalty")),
        ({"think": True, "enable_thinking": False}, ("think", "enable_thinking")),
        ({"think": "low", "reasoning": {"effort": "high"}}, ("think", "reasoning")),
        ({"max_completion_tokens": 5, "num_predict": 6}, ("num_predict", "max_completion_tokens")),
        ({"guided_regex": "a", "guided_choice": ["b"]}, ("guided_regex", "guided_choice")),
        ({"json_schema": SCHEMA, "guided_json": {}}, ("json_schema", "guided_json")),
    ],
)
async def test_two_names_with_different_values_contradict_each_other(
    http: httpx.AsyncClient, sent: dict[str, Any], names: tuple[str, str]
) -> None:
    response = await http.post(CHAT, json=chat_body(**sent))
    message = assert_error(response, 400, param=names[1])
    assert all(name in message for name in names)


async def test_two_names_with_one_value_agree(http: httpx.AsyncClient, pool: FakePool) -> None:
    sent = {"max_tokens": 5, "n_predict": 5.0, "max_completion_tokens": 5, "num_predict": None}
    assert (await canonical(http, pool, CHAT, sent)).max_tokens == 5


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"options": {"temperature": 5}}, "options.temperature"),
        ({"n_predict": 0}, "n_predict"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": '{"minimum": NaN}'}, "guided_json"),
        ({"guided_json": '{"maximum": 1e999}'}, "guided_json"),
        ({"structured_outputs": {"regex": 5}}, "structured_outputs"),
        ({"think": "much"}, "think"),
        ({"thinking": {"type": "enabled", "budget_tokens": "many"}}, "thinking"),
        ({"thinking": {"type": "enabled", "enabled": "off"}}, "thinking.enabled"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"num_ctx": 0}, "num_ctx"),
        ({"max_tokens": -3}, "max_tokens"),
        ({"top_k": 1.5}, "top_k"),
    ],
)
async def test_a_wrong_value_is_named_as_the_client_wrote_it(
    http: httpx.AsyncClient, sent: dict[str, Any], param: str
) -> None:
    assert_error(await http.post(CHAT, json=chat_body(**sent)), 400, param=param)


@pytest.mark.parametrize(
    ("path", "sent", "named"),
    [
        (CHAT, {"cache_prompt": False}, "cache_prompt"),
        (CHAT, {"options": {"num_gpu": 1, "temperature": 0}}, "options.num_gpu"),
        (CHAT, {"reasoning": {"effort": "low", "exclude": True}}, "reasoning.exclude"),
        (CHAT, {"structured_outputs": {"regex": "a", "x": 1}}, "structured_outputs.x"),
        (CHAT, {"thinking": {"type": "enabled", "display": "x"}}, "thinking.display"),
        (CHAT, {"thinking": {"type": "sometimes"}}, "thinking.type"),
        (COMPLETIONS, {"think": True}, "think"),
        (COMPLETIONS, {"keep_alive": "5m", "top_n_sigma": 1}, "keep_alive, top_n_sigma"),
    ],
)
async def test_what_means_nothing_here_is_named(
    http: httpx.AsyncClient, path: str, sent: dict[str, Any], named: str
) -> None:
    response = await http.post(path, json=body_of(path, **sent))
    assert response.status_code == 200, response.text
    assert response.headers["x-dragoman-ignored"] == named


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
async def test_a_context_beyond_the_model_is_said_to_be_lowered(
    http: httpx.AsyncClient, path: str
) -> None:
    for asked, said in ((CONTEXT + 1, f"num_ctx={CONTEXT}"), (CONTEXT, None)):
        response = await http.post(path, json=body_of(path, options={"num_ctx": asked}))
        assert response.status_code == 200
        assert response.headers.get("x-dragoman-clamped") == said


async def test_no_logprobs_may_be_said_in_two_ways(http: httpx.AsyncClient, pool: FakePool) -> None:
    assert (await canonical(http, pool, CHAT, {"logprobs": 0})).logprobs is None
    assert (await canonical(http, pool, COMPLETIONS, {"logprobs": False})).logprobs is None
    assert (await canonical(http, pool, COMPLETIONS, {"logprobs": 0})).logprobs == 0

"""Wrong fields, as far as no model is needed: each is refused by name, and the next is served."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.api.generation_fields import MAX_STOP_LENGTH
from server.api.openai.schemas.chat_request import MAX_MESSAGES
from tests.api.fakes import VOCABULARY, FakePool
from tests.api.wire import CHAT, COMPLETIONS, assert_error, chat, chat_body, completion_body

USER = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "function": {"name": "f"}}


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


CHAT_CASES: list[tuple[str, dict[str, Any], str]] = [
    ("model is a number", {"model": 5}, "model"),
    ("no messages", {"messages": []}, "messages"),
    ("messages null", {"messages": None}, "messages"),
    ("messages a string", {"messages": "hi"}, "messages"),
    ("message a string", {"messages": ["hi"]}, "messages[0]"),
    ("message without role", {"messages": [{"content": "a"}]}, "messages[0].role"),
    ("unknown role", {"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
    ("content a number", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ("content null", {"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ("content missing", {"messages": [USER, {"role": "user"}]}, "messages[1].content"),
    ("content empty list", {"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    (
        "unknown part",
        {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
        "messages[0].content[0].type",
    ),
    (
        "part without text",
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    (
        "tool without call id",
        {"messages": [USER, {"role": "tool", "content": "a"}]},
        "messages[1].tool_call_id",
    ),
    ("100,000 messages", {"messages": [USER] * 100_000}, "messages"),
    *((f"temperature {v}", {"temperature": v}, "temperature") for v in (-1, 2.1, "hot", True)),
    *((f"top_p {v}", {"top_p": v}, "top_p") for v in (-0.1, 1.1)),
    *(
        (f"{name} {v}", {name: v}, name)
        for name in ("frequency_penalty", "presence_penalty")
        for v in (-2.1, 2.1)
    ),
    *((f"max_tokens {v}", {"max_tokens": v}, "max_tokens") for v in (-3, 0, 1.5, True)),
    (
        "two limits",
        {"max_tokens": 1, "max_completion_tokens": 2},
        "max_completion_tokens",
    ),
    (
        "two wrong fields, the first of which is named",
        {"messages": 5, "response_format": {"type": "json_schema", "json_schema": {"name": ""}}},
        "messages",
    ),
    *((f"n {v}", {"n": v}, "n") for v in (0, 129, 10**9)),
    ("257 stops", {"stop": ["a"] * 257}, "stop"),
    ("stop a number", {"stop": ["a", 5]}, "stop[1]"),
    ("1 MB stop", {"stop": "x" * 2**20}, "stop"),
    ("21 top_logprobs", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ("top_logprobs alone", {"top_logprobs": 1}, "top_logprobs"),
    ("top_logprobs without", {"logprobs": False, "top_logprobs": 1}, "top_logprobs"),
    ("logprobs a number", {"logprobs": 1}, "logprobs"),
    ("bias 101", {"logit_bias": {"1": 101}}, "logit_bias.1"),
    ("bias -101", {"logit_bias": {"1": -101}}, "logit_bias.1"),
    ("bias of a word", {"logit_bias": {"cat": 1}}, "logit_bias.cat"),
    ("bias of a huge number", {"logit_bias": {"9" * 5000: 1}}, "logit_bias." + "9" * 100),
    ("seed 2^64", {"seed": 2**64}, "seed"),
    ("seed 2^63", {"seed": 2**63}, "seed"),
    ("stream yes", {"stream": "yes"}, "stream"),
    ("stream 1", {"stream": 1}, "stream"),
    ("stream_options alone", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("tool_choice alone", {"tool_choice": "required"}, "tool_choice"),
    ("parameters a list", {"tools": [tool("f", parameters=[1])]}, "tools[0].function.parameters"),
    ("two tools of a name", {"tools": [tool("f"), tool("f")]}, "tools"),
    ("129 tools", {"tools": [tool(f"f{i}") for i in range(129)]}, "tools"),
    ("a choice that is no tool", {"tools": [tool("g")], "tool_choice": FUNCTION}, "tool_choice"),
    (
        "schema a list",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": []}}},
        "response_format.json_schema.schema",
    ),
    ("unknown format", {"response_format": {"type": "xml"}}, "response_format.type"),
    ("two constraints", {"regex": "a", "choice": ["b"]}, "choice"),
    ("no choice", {"choice": []}, "choice"),
    ("top_k -2", {"top_k": -2}, "top_k"),
    ("min_p 2", {"min_p": 2}, "min_p"),
    ("mirostat 3", {"mirostat": 3}, "mirostat"),
    ("repeat_penalty 0", {"repeat_penalty": 0}, "repeat_penalty"),
    (
        "thinking twice",
        {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
        "enable_thinking",
    ),
    (
        "continue and prompt",
        {
            "messages": [{"role": "assistant", "content": "a"}],
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
        "add_generation_prompt",
    ),
    (
        "a begun answer that is not to be continued",
        {
            "messages": [{"role": "assistant", "content": "a", "prefix": True}],
            "continue_final_message": False,
        },
        "continue_final_message",
    ),
]


@pytest.mark.parametrize(
    ("fields", "param"), [case[1:] for case in CHAT_CASES], ids=[case[0] for case in CHAT_CASES]
)
async def test_bad_chat_fields_are_named(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    assert_error(await http.post(CHAT, json=chat_body(**fields)), 400, param=param)
    await chat(http)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [[1], [1, 2**70]]}, "prompt[1][1]"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"best_of": 129}, "best_of"),
        ({"echo": "yes"}, "echo"),
    ],
)
async def test_bad_completion_fields_are_named(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    assert_error(await http.post(COMPLETIONS, json=completion_body(**fields)), 400, param=param)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_request_names_its_model(http: httpx.AsyncClient, path: str) -> None:
    body = chat_body() if path == CHAT else completion_body()
    del body["model"]
    message = assert_error(await http.post(path, json=body), 400, param="model")
    assert "required" in message.lower()


@pytest.mark.parametrize("name", ["nope", "../../etc/passwd", "a\0b", "x" * 10_000, ""])
async def test_unknown_models_are_404(http: httpx.AsyncClient, name: str) -> None:
    response = await http.post(CHAT, json=chat_body(model=name))
    message = assert_error(response, 404, code="model_not_found", param="model")
    assert len(message) < 200


async def test_limits_themselves_are_allowed(http: httpx.AsyncClient, pool: FakePool) -> None:
    await chat(
        http,
        messages=[USER] * MAX_MESSAGES,
        temperature=2,
        top_p=0,
        frequency_penalty=-2,
        presence_penalty=2,
        n=128,
        stop=["x" * MAX_STOP_LENGTH] * 4,
        logprobs=True,
        top_logprobs=20,
        logit_bias={str(VOCABULARY - 1): 100, "0": -100.0},
        seed=2**63 - 1,
        tools=[tool(f"f{i}") for i in range(128)],
    )
    assert pool.client.requests[0].n == 128


async def test_an_error_does_not_repeat_a_long_input(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=chat_body(tool_choice="x" * 100_000))
    assert response.status_code == 400
    assert len(response.content) < 1000


SAID = {"messages": [USER]}
BODIES = [
    ("/v1/chat/completions", SAID),
    ("/v1/completions", {"prompt": "a"}),
    ("/v1/responses", {"input": "a"}),
    ("/v1/responses/compact", {"input": "a"}),
    ("/v1/responses/input_tokens", {"input": "a"}),
    ("/v1/messages", {**SAID, "max_tokens": 1}),
    ("/v1/messages/count_tokens", SAID),
    ("/v1/embeddings", {"input": "a"}),
    ("/apply-template", SAID),
]


@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_a_body_without_a_model_is_told_which_there_are(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    for unnamed in (body, {**body, "model": None}):
        response = await http.post(path, json=unnamed)
        assert response.status_code == 400
        message = response.json()["error"]["message"]
        assert message.startswith("model: ")
        assert message.endswith("There are: test.")


async def test_the_name_of_a_model_to_pull_is_none_of_those_that_are_there(
    http: httpx.AsyncClient,
) -> None:
    response = await http.post("/v1/pulls", json={})
    assert response.json()["error"]["message"] == "model: Field required."

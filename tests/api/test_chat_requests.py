"""What of a chat completion's body reaches the model, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from server.core.request import (
    ChatPrompt,
    Constraint,
    Message,
    TextPart,
    ToolChoice,
)
from server.core.sampling import INT32_MAX
from tests.api.fakes import FakePool
from tests.api.wire import (
    TOOL,
    chat,
)

Connect = Callable[..., httpx.AsyncClient]


async def test_both_names_of_the_limit_are_honoured(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    for fields in (
        {"max_tokens": 7},
        {"max_completion_tokens": 7},
        {"max_tokens": 7, "max_completion_tokens": 7},
        {"max_tokens": 2**31},
        {"max_tokens": 10**30},
        {},
    ):
        await chat(http, **fields)
    limits = [request.max_tokens for request in pool.client.requests]
    assert limits == [7, 7, 7, INT32_MAX, INT32_MAX, None]


async def test_what_is_silent_or_null_stays_open_for_the_model_s_defaults(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    await chat(http, temperature=None, top_p=None, n=None, stop=None, seed=None, tools=None)
    (request,) = pool.client.requests
    assert request.sampling.temperature is None
    assert request.sampling.top_p is None
    assert (request.n, request.stop, request.logprobs) == (1, [], None)


async def test_sampling_parameters_of_the_field_are_taken_at_top_level(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    fields = {
        "top_k": 40,
        "min_p": 0.05,
        "typical_p": 0.9,
        "repeat_penalty": 1.1,
        "repeat_last_n": -1,
        "dry_multiplier": 0.8,
        "dry_base": 1.75,
        "dry_allowed_length": 2,
        "dry_penalty_last_n": -1,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.1,
        "mirostat": 2,
        "mirostat_tau": 5,
        "mirostat_eta": 0.1,
    }
    await chat(http, **fields, logit_bias={"7": -100}, ignore_eos=True, seed=-(2**63))
    (request,) = pool.client.requests
    assert {name: getattr(request.sampling, name) for name in fields} == fields
    assert request.sampling.logit_bias == {7: -100}
    assert request.sampling.seed == -(2**63)
    assert request.ignore_eos


async def test_messages_reach_the_model_as_they_are(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    await chat(
        http,
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}], "name": "ann"},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "audio": None,
                "annotations": [],
                "tool_calls": [call],
                "reasoning_content": "hm",
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "assistant", "refusal": "I will not."},
            {"role": "user", "content": ""},
        ],
    )
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    roles = [message.role for message in prompt.messages]
    assert roles == ["developer", "user", "assistant", "tool", "assistant", "user"]
    assert prompt.messages[1] == Message(role="user", content=[TextPart("a")], name="ann")
    assert prompt.messages[2].content is None
    assert prompt.messages[2].reasoning_content == "hm"
    assert prompt.messages[2].tool_calls[0].arguments == "{}"
    assert prompt.messages[3].tool_call_id == "c1"
    assert prompt.messages[4].content == "I will not."
    assert prompt.messages[5].content == ""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "I will not."),
        ("", "I will not."),
        ("Hm.", [TextPart("Hm."), TextPart("I will not.")]),
        ([{"type": "text", "text": "Hm."}], [TextPart("Hm."), TextPart("I will not.")]),
    ],
)
async def test_a_refusal_beside_content_is_not_dropped(
    http: httpx.AsyncClient, pool: FakePool, content: Any, expected: Any
) -> None:
    refused = {"role": "assistant", "content": content, "refusal": "I will not."}
    await chat(http, messages=[refused, {"role": "user", "content": "Why?"}])
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("none", ToolChoice(mode="none")),
        ("required", ToolChoice(mode="required")),
        (
            {"type": "function", "function": {"name": "weather"}},
            ToolChoice(mode="named", name="weather"),
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
            ToolChoice(mode="required"),
        ),
    ],
)
async def test_tool_choice(
    http: httpx.AsyncClient, pool: FakePool, choice: object, expected: ToolChoice
) -> None:
    await chat(http, tools=[TOOL], tool_choice=choice)
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tool_choice == expected
    assert [tool.name for tool in prompt.tools] == ["weather"]


async def test_parallel_tool_calls_may_be_forbidden(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    await chat(http, tools=[TOOL], parallel_tool_calls=False)
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert not prompt.tool_choice.parallel


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint(kind="json_object")),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}},
                }
            },
            Constraint(kind="json_schema", body='{"type":"object"}'),
        ),
        ({"regex": "a+"}, Constraint(kind="regex", body="a+")),
        ({"choice": ["a", "b"]}, Constraint(kind="choice", body='["a","b"]')),
        ({"lark": "start: /a/"}, Constraint(kind="lark", body="start: /a/")),
        ({"grammar": 'root ::= "a"'}, Constraint(kind="gbnf", body='root ::= "a"')),
    ],
)
async def test_constraints(
    http: httpx.AsyncClient,
    pool: FakePool,
    fields: dict[str, object],
    expected: Constraint | None,
) -> None:
    await chat(http, **fields)
    assert pool.client.requests[0].constraint == expected


async def test_template_variables_come_from_three_places(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    await chat(
        http,
        enable_thinking=False,
        reasoning_effort="low",
        chat_template_kwargs={"date": "today", "enable_thinking": False},
    )
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.template_kwargs == {
        "enable_thinking": False,
        "reasoning_effort": "low",
        "date": "today",
    }


async def test_a_final_message_can_be_continued(http: httpx.AsyncClient, pool: FakePool) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    await chat(http, messages=messages, continue_final_message=True)
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert (prompt.continue_final_message, prompt.add_generation_prompt) == (True, False)


@pytest.mark.parametrize("content", ["a b", [{"type": "text", "text": t} for t in ("a ", "b")]])
async def test_a_prediction_reaches_the_model(
    http: httpx.AsyncClient, pool: FakePool, content: object
) -> None:
    await chat(http, prediction={"type": "content", "content": content})
    assert pool.client.requests[0].prediction == "a b"

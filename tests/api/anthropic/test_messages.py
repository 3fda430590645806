"""``POST /v1/messages``: what the model is asked, and what the client gets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest
from anthropic.types import ToolUseBlock

from server.core.events import Accepted, Event, Finished, FinishReason
from server.core.request import Constraint, GenerationRequest, ToolChoice
from server.core.sampling import Sampling
from server.reply.builtin_formats import builtin_format
from tests.api.anthropic.wire import (
    COUNT_TOKENS,
    MESSAGES,
    TOOL,
    USER,
    body,
    deltas,
    events,
    message,
)
from tests.api.fakes import FakePool, answer, usage
from tests.api.serving import pausing, serving

Connect = Callable[..., httpx.AsyncClient]

HERMES = builtin_format("hermes")
THOUGHT = "<think>\nHm.\n</think>\n\n"
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
THINKING = {"type": "adaptive"}


def saying(*texts: str, **options: Any) -> FakePool:
    """A model that writes these texts in the syntax of Hermes."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, *texts, **options)

    return FakePool(script, HERMES)


async def test_a_whole_answer_is_a_message(http: httpx.AsyncClient, pool: FakePool) -> None:
    found = await message(http)
    assert found.id.startswith("msg_")
    assert (found.role, found.model, found.stop_reason) == ("assistant", "test", "end_turn")
    assert [block.model_dump(exclude_unset=True) for block in found.content] == [
        {"type": "text", "text": "Hello!"}
    ]
    assert (found.usage.input_tokens, found.usage.output_tokens) == (5, 3)


async def test_a_stream_tells_of_it_block_by_block(http: httpx.AsyncClient) -> None:
    found = await events(http)
    start = found[0]["message"]
    assert start["content"] == []
    assert start["stop_reason"] is None
    assert start["usage"]["input_tokens"] == 5
    assert found[1]["content_block"] == {"type": "text", "text": ""}
    assert deltas(found, "text_delta") == "Hello!"
    assert found[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert found[-2]["usage"]["output_tokens"] == 3


async def test_thoughts_text_and_calls_are_blocks_in_their_order(connect: Connect) -> None:
    pool = saying(THOUGHT, "I add.", CALL, CALL, tools_active=True)
    found = await message(connect(pool), tools=[TOOL])
    kinds = [block.type for block in found.content]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    assert found.stop_reason == "tool_use"
    calls = [block for block in found.content if isinstance(block, ToolUseBlock)]
    assert [(call.name, call.input) for call in calls] == [("add", {"a": 1})] * 2
    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("toolu_") for call in calls)

    streamed = await events(connect(pool), tools=[TOOL])
    blocks = [event["content_block"] for event in streamed if "content_block" in event]
    assert [block["type"] for block in blocks] == kinds
    assert [block.get("input") for block in blocks[2:]] == [{}, {}]
    assert deltas(streamed, "input_json_delta") == '{"a": 1}{"a": 1}'
    assert deltas(streamed, "thinking_delta") == getattr(found.content[0], "thinking", None)
    assert deltas(streamed, "signature_delta") == getattr(found.content[0], "signature", None)


async def test_ids_of_calls_differ_from_answer_to_answer(connect: Connect) -> None:
    http = connect(saying(CALL, tools_active=True))
    ids = set()
    for _ in range(3):
        (call,) = (await message(http, tools=[TOOL])).content
        assert isinstance(call, ToolUseBlock)
        ids.add(call.id)
    assert len(ids) == 3


async def test_the_signature_follows_the_thoughts_before_their_block_ends(connect: Connect) -> None:
    found = await events(connect(saying(THOUGHT, "Yes.")))
    kinds = [event.get("delta", {}).get("type", event["type"]) for event in found]
    at = kinds.index("signature_delta")
    assert kinds[at - 1] == "thinking_delta"
    assert kinds[at + 1] == "content_block_stop"


async def test_omitted_thoughts_are_in_the_signature_and_come_back(connect: Connect) -> None:
    pool = saying(THOUGHT, "Yes.")
    http = connect(pool)
    thinking = {**THINKING, "display": "omitted"}
    found = await message(http, thinking=thinking)
    block, text = (block.model_dump(exclude_unset=True) for block in found.content)
    assert block["thinking"] == ""
    assert "thinking_delta" not in json.dumps(await events(http, thinking=thinking))
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": [block, text]}]
    await message(http, messages=[*turns, {"role": "user", "content": "!"}])
    assert _messages(pool)[1].reasoning_content.strip() == "Hm."


@pytest.mark.parametrize(
    ("reason", "stop", "max_tokens", "expected"),
    [
        ("stop", None, 9, ("end_turn", None)),
        ("stop", "END", 9, ("stop_sequence", "END")),
        ("stop", "<eot>", 9, ("end_turn", None)),
        ("length", None, 2, ("max_tokens", None)),
        ("length", None, 9, ("model_context_window_exceeded", None)),
    ],
)
async def test_why_it_stopped(
    connect: Connect,
    reason: FinishReason,
    stop: str | None,
    max_tokens: int,
    expected: tuple[str, str | None],
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Finished(id=1, index=0, reason=reason, usage=usage(2), stop=stop)

    http = connect(FakePool(script))
    fields = {"max_tokens": max_tokens, "stop_sequences": ["END"]}
    found = await message(http, **fields)
    assert (found.stop_reason, found.stop_sequence) == expected
    delta = (await events(http, **fields))[-2]["delta"]
    assert (delta["stop_reason"], delta["stop_sequence"]) == expected


async def test_cached_tokens_are_not_among_the_input_tokens(connect: Connect) -> None:
    http = connect(saying("Yes.", cached_tokens=4))
    found = (await message(http)).usage
    assert (found.input_tokens, found.cache_read_input_tokens) == (1, 4)
    assert found.cache_creation_input_tokens == 0
    streamed = (await events(http))[-2]["usage"]
    assert (streamed["input_tokens"], streamed["cache_read_input_tokens"]) == (1, 4)


async def test_a_call_that_was_cut_off_has_no_input(connect: Connect) -> None:
    cut = CALL.split("1}", maxsplit=1)[0]
    http = connect(saying(cut, tools_active=True, reason="length"))
    found = await message(http, tools=[TOOL])
    (call,) = found.content
    assert isinstance(call, ToolUseBlock)
    assert (call.input, found.stop_reason) == ({}, "model_context_window_exceeded")
    assert deltas(await events(http, tools=[TOOL]), "input_json_delta").startswith('{"a"')


async def test_parameters_reach_the_model(http: httpx.AsyncClient, pool: FakePool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await message(
        http,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        stop_sequences=["END", "\n\n"],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    request = pool.client.requests[0]
    assert request.sampling == Sampling(temperature=0.5, top_p=0.9, top_k=7)
    assert (request.max_tokens, request.stop) == (100, ["END", "\n\n"])
    assert isinstance(request.constraint, Constraint)
    assert request.constraint.kind == "json_schema"
    assert json.loads(request.constraint.body) == schema


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ({"type": "auto"}, ToolChoice()),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(parallel=False)),
        ({"type": "any"}, ToolChoice(mode="required")),
        (
            {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
            ToolChoice(mode="named", name="add", parallel=False),
        ),
        ({"type": "none"}, ToolChoice(mode="none")),
    ],
)
async def test_the_choice_of_tools(
    http: httpx.AsyncClient, pool: FakePool, choice: Any, expected: ToolChoice
) -> None:
    await message(http, tools=[TOOL], tool_choice=choice)
    prompt = _prompt(pool)
    assert prompt.tool_choice == expected
    (tool,) = prompt.tools
    assert (tool.name, tool.description) == ("add", "Adds.")
    assert tool.parameters == TOOL["input_schema"]


@pytest.mark.parametrize(
    ("fields", "variables"),
    [
        ({}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"enable_thinking": True}),
        ({"thinking": {"type": "adaptive", "display": "updates"}}, {"enable_thinking": True}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "disabled", "enabled": "off"}}, {"enable_thinking": False}),
        ({"thinking": {"type": None, "enabled": "off"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "Disabled"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "none"}}, {"enable_thinking": False}),
        ({"output_config": {"effort": "high"}}, {"reasoning_effort": "high"}),
    ],
)
async def test_thinking_and_effort_are_variables_of_the_template(
    http: httpx.AsyncClient, pool: FakePool, fields: Any, variables: Any
) -> None:
    await message(http, **fields)
    assert _prompt(pool).template_kwargs == variables


@pytest.mark.parametrize(
    ("thinking", "budget"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, 1024),
        ({"type": "enabled", "budget_tokens": 10**12}, 2**31 - 1),
        ({"type": "enabled", "budget_tokens": 1}, 1),
        ({"type": "enabled", "budget_tokens": 0}, 0),
        ({"type": "enabled", "budget_tokens": -1}, None),
        ({"type": "between_tools"}, None),
    ],
)
async def test_a_budget_of_thoughts_holds_whatever_its_size(
    http: httpx.AsyncClient, pool: FakePool, thinking: Any, budget: int | None
) -> None:
    await message(http, thinking=thinking)
    assert pool.client.requests[-1].reasoning_budget == budget
    assert _prompt(pool).template_kwargs == {"enable_thinking": budget != 0}


async def test_more_tokens_than_the_context_has_are_lowered_and_said(
    http: httpx.AsyncClient,
) -> None:
    response = await http.post(MESSAGES, json=body(max_tokens=10**12))
    assert response.status_code == 200
    assert response.headers["x-dragoman-clamped"] == "max_tokens=2048"
    assert "x-dragoman-clamped" not in (await http.post(MESSAGES, json=body())).headers


async def test_what_has_no_effect_is_named(http: httpx.AsyncClient) -> None:
    text = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}, "new": None}
    response = await http.post(
        f"{MESSAGES}?beta=true",
        headers={"anthropic-version": "2099-01-01", "anthropic-beta": "a,b"},
        json=body(
            messages=[{"role": "user", "content": [text, text]}],
            metadata={"user_id": "{}"},
            thinking={"type": "enabled", "budget_tokens": 1024},
            tools=[TOOL, {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
            **{"schlüssel\r\nx: y": 1},
        ),
    )
    assert response.status_code == 200
    assert response.headers["x-dragoman-ignored"].split(", ") == [
        "messages.content.cache_control",
        "metadata",
        "schl?ssel??x? y",
        "thinking.budget_tokens",
        "tools.web_search_20250305",
        "anthropic-beta.a",
        "anthropic-beta.b",
    ]


@pytest.mark.parametrize("path", [MESSAGES, COUNT_TOKENS])
async def test_betas_that_are_not_known_are_named(http: httpx.AsyncClient, path: str) -> None:
    asked: dict[str, Any] = {"model": "test", "messages": [USER], "metadata": {"user_id": "u"}}
    if path == MESSAGES:
        asked["max_tokens"] = 5
    known = "claude-code-20250219,interleaved-thinking-2025-05-14, effort-2025-11-24"
    plain = await http.post(path, headers={"anthropic-beta": known}, json=asked)
    assert plain.headers["x-dragoman-ignored"] == "metadata"
    betas = [
        (b"anthropic-beta", f"{known},".encode()),
        (b"anthropic-beta", "skills-2025-10-02, ä".encode()),
    ]
    named = await http.post(path, headers=betas, json=asked)
    assert named.status_code == 200
    assert named.headers["x-dragoman-ignored"].split(", ") == [
        "metadata",
        "anthropic-beta.skills-2025-10-02",
        "anthropic-beta.??",
    ]


@pytest.mark.process
async def test_pings_keep_a_stream_alive_while_the_model_loads_and_reads() -> None:
    pool = pausing(0, 0.2, 1)
    pool.opening_seconds = 0.2
    async with serving(pool, ping_seconds=0.05) as running:
        response = await running.http.post(MESSAGES, json=body(stream=True))
    before, _, after = response.text.partition("event: message_start")
    ping = 'event: ping\ndata: {"type":"ping"}\n\n'
    assert before.count(ping) >= 2
    assert after.count(ping) >= 2
    assert ": ping" not in response.text.replace("event: ping", "")


def _prompt(pool: FakePool) -> Any:
    return pool.client.requests[-1].prompt


def _messages(pool: FakePool) -> Any:
    return _prompt(pool).messages

"""``context_management`` and ``compaction``: what is cleared and summed up, and what is said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import httpx
import httpx2
import pytest
from anthropic import AsyncAnthropic
from anthropic.types.beta import BetaMessage, BetaMessageTokensCount, BetaRawMessageStreamEvent
from pydantic import TypeAdapter

from server.api.anthropic.clearing import CLEARED, without_thinking, without_tool_uses
from server.api.anthropic.schemas.context_management import ClearThinking, ClearToolUses
from server.api.summary import SUMMARY_TASK
from server.app import create_app
from server.core.errors import InvalidRequest
from server.core.events import Event, Failed
from server.core.request import ChatPrompt, GenerationRequest, Message, ToolCall
from server.core.settings import Settings
from server.reply.builtin_formats import builtin_format
from tests.api.anthropic.wire import (
    COUNT_TOKENS,
    MESSAGES,
    TOOL,
    USER,
    assert_error,
    body,
    parse_events,
)
from tests.api.fakes import CONTEXT, FakePool, answer, letters
from tests.api.summing_up import answering

Connect = Callable[..., httpx.AsyncClient]

_EVENT: TypeAdapter[BetaRawMessageStreamEvent] = TypeAdapter(BetaRawMessageStreamEvent)

TOOL_USES: Final = "clear_tool_uses_20250919"
THINKING: Final = "clear_thinking_20251015"
COMPACT = "compact_20260112"
ALL_OF_IT = {"type": THINKING, "keep": "all"}
ALWAYS = {"type": "tool_uses", "value": 0}


def thinking(thoughts: str, *content: Any) -> dict[str, Any]:
    block = {"type": "thinking", "thinking": thoughts, "signature": ""}
    return {"role": "assistant", "content": [block, *content]}


def call(number: int, name: str = "add") -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {"a": number}}


def result(number: int, said: str = "x" * 100) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": said}
    return {"role": "user", "content": [block]}


SAID = {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
CALLS = [
    USER,
    *(
        turn
        for number in range(4)
        for turn in ({"role": "assistant", "content": [call(number)]}, result(number))
    ),
]
THOUGHTS = [
    USER,
    thinking("one", *SAID["content"]),
    USER,
    thinking("two", call(0)),
    result(0),
    thinking("three", call(1)),
    result(1),
]
LONG = [USER, {"role": "assistant", "content": "y" * 2000}, {"role": "user", "content": "Go on."}]


@pytest.fixture
def pool() -> FakePool:
    return answering()


def edited(*edits: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return body(context_management={"edits": list(edits)}, **fields)


async def asked(http: httpx.AsyncClient, pool: FakePool, wanted: Any) -> list[Message]:
    """The messages that the model is asked in the end."""
    response = await http.post(MESSAGES, json=wanted)
    assert response.status_code == 200, response.text
    return last(pool)


def last(pool: FakePool) -> list[Message]:
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages


async def both(http: httpx.AsyncClient, wanted: dict[str, Any]) -> tuple[BetaMessage, list[Any]]:
    """The whole answer, and the events of the same one, valid in strict mode."""
    whole = await http.post(MESSAGES, json=wanted)
    assert whole.status_code == 200, whole.text
    streamed = await http.post(MESSAGES, json={**wanted, "stream": True})
    events = parse_events(streamed.text)
    for event in events:
        _EVENT.validate_json(json.dumps(event), strict=True)
    return BetaMessage.model_validate_json(whole.content, strict=True), events


async def applied(http: httpx.AsyncClient, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The edits that an answer says were applied, whole and streamed."""
    whole, events = await both(http, wanted)
    assert whole.context_management is not None
    said = [edit.model_dump() for edit in whole.context_management.applied_edits]
    assert events[-2]["context_management"]["applied_edits"] == said
    return said


async def test_an_edit_without_effect_leaves_the_prompt_and_asks_nothing(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    plain = await asked(http, pool, body(messages=THOUGHTS))
    wanted = edited(ALL_OF_IT, {"type": TOOL_USES}, messages=THOUGHTS)
    assert await applied(http, wanted) == []
    assert last(pool) == plain
    assert pool.client.rendered == []
    response = await http.post(MESSAGES, json=wanted)
    assert "context_management" not in response.headers.get("x-dragoman-ignored", "")


async def test_an_answer_to_a_request_without_edits_says_nothing_of_them(
    http: httpx.AsyncClient,
) -> None:
    whole = (await http.post(MESSAGES, json=body())).json()
    streamed = parse_events((await http.post(MESSAGES, json=body(stream=True))).text)
    for said in (whole, streamed[-2]):
        assert "context_management" not in said
        assert "iterations" not in said["usage"]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (None, [None, "two", "three"]),
        ({"type": "thinking_turns", "value": 1}, [None, "two", "three"]),
        ({"type": "thinking_turns", "value": 2}, ["one", "two", "three"]),
        ({"type": "all"}, ["one", "two", "three"]),
    ],
)
async def test_thoughts_of_old_turns_are_cleared_and_a_turn_goes_on_behind_results(
    http: httpx.AsyncClient, pool: FakePool, keep: Any, left: list[str | None]
) -> None:
    edit = {"type": THINKING, **({} if keep is None else {"keep": keep})}
    messages = await asked(http, pool, edited(edit, messages=THOUGHTS))
    thoughts = [turn.reasoning_content for turn in messages if turn.role == "assistant"]
    assert thoughts == left
    said = await applied(http, edited(edit, messages=THOUGHTS))
    cleared = {"cleared_input_tokens": 3, "cleared_thinking_turns": 1, "type": THINKING}
    assert said == ([cleared] if None in left else [])


def results(messages: list[Message]) -> list[Any]:
    return [turn.content for turn in messages if turn.role == "tool"]


async def test_results_of_old_calls_are_cleared(http: httpx.AsyncClient, pool: FakePool) -> None:
    edit = {"type": TOOL_USES, "trigger": {"type": "tool_uses", "value": 3}}
    messages = await asked(http, pool, edited(edit, messages=CALLS))
    assert results(messages) == [CLEARED, *["x" * 100] * 3]
    assert [c.arguments for turn in messages for c in turn.tool_calls] == [
        f'{{"a": {number}}}' for number in range(4)
    ]
    saved = 100 - len(CLEARED)
    assert await applied(http, edited(edit, messages=CALLS)) == [
        {"cleared_input_tokens": saved, "cleared_tool_uses": 1, "type": TOOL_USES}
    ]
    # One more turn leaves what was sent before as it was, up to what is cleared next.
    more = [*CALLS, {"role": "assistant", "content": [call(4)]}, result(4)]
    assert (await asked(http, pool, edited(edit, messages=more)))[:3] == messages[:3]


@pytest.mark.parametrize(
    ("fields", "cleared"),
    [
        ({"keep": {"type": "tool_uses", "value": 1}}, [0, 1, 2]),
        ({"keep": {"type": "tool_uses", "value": 0}}, [0, 1, 2, 3]),
        ({"keep": {"type": "tool_uses", "value": 9}}, []),
        ({"exclude_tools": ["add"]}, []),
        ({"exclude_tools": ["other"]}, [0]),
        ({"trigger": {"type": "tool_uses", "value": 4}}, []),
        ({"trigger": {"type": "input_tokens", "value": 1000}}, []),
        ({"trigger": {"type": "input_tokens", "value": 400}}, [0]),
        ({"clear_at_least": {"type": "input_tokens", "value": 1000}}, []),
        ({"clear_at_least": {"type": "input_tokens", "value": 10}}, [0]),
    ],
)
async def test_which_results_are_cleared(
    http: httpx.AsyncClient, pool: FakePool, fields: Any, cleared: list[int]
) -> None:
    edit = {"type": TOOL_USES, "trigger": ALWAYS, **fields}
    messages = await asked(http, pool, edited(edit, messages=CALLS))
    assert [n for n, said in enumerate(results(messages)) if said == CLEARED] == cleared


async def test_ids_of_calls_may_repeat(http: httpx.AsyncClient, pool: FakePool) -> None:
    turns = [{"role": "assistant", "content": [call(0)]}, result(0)]
    edit = {"type": TOOL_USES, "trigger": ALWAYS, "clear_tool_inputs": True}
    wanted = edited(edit, messages=[USER, *turns * 5])
    messages = await asked(http, pool, wanted)
    assert results(messages) == [CLEARED] * 2 + ["x" * 100] * 3
    arguments = [made.arguments for turn in messages for made in turn.tool_calls]
    assert arguments == ["{}"] * 2 + ['{"a": 0}'] * 3
    (said,) = await applied(http, wanted)
    assert said["cleared_tool_uses"] == 2


@pytest.mark.parametrize(
    ("inputs", "left"),
    [(True, "{}"), (["add"], "{}"), (["other"], '{"a": 0}'), (False, '{"a": 0}')],
)
async def test_inputs_of_old_calls_are_cleared_where_that_is_asked_for(
    http: httpx.AsyncClient, pool: FakePool, inputs: Any, left: str
) -> None:
    edit = {"type": TOOL_USES, "trigger": ALWAYS, "clear_tool_inputs": inputs}
    messages = await asked(http, pool, edited(edit, messages=CALLS))
    first, *others = (c.arguments for turn in messages for c in turn.tool_calls)
    assert first == left
    assert others == [f'{{"a": {number}}}' for number in (1, 2, 3)]


def test_clearing_takes_time_that_grows_with_the_conversation_only() -> None:
    turns = [Message(role="user", content="u"), Message(role="assistant", reasoning_content="t")]
    made = ToolCall(id="1", name="add", arguments="{}")
    calls = [
        Message(role="assistant", tool_calls=[made]),
        Message(role="tool", content="x", tool_call_id="1"),
    ]
    names = [f"tool_{number}" for number in range(50_000)]
    tools = ClearToolUses(type=TOOL_USES, exclude_tools=names, clear_tool_inputs=names)
    before = time.thread_time()
    assert without_thinking(ClearThinking(type=THINKING), turns * 10_000) is not None
    assert without_tool_uses(tools, calls * 5_000) is not None
    assert time.thread_time() - before < 1.5


async def test_a_trigger_beyond_the_context_is_lowered_and_said(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    long = [*CALLS[:-1], result(3, "x" * CONTEXT)]
    for trigger in ({}, {"trigger": {"type": "input_tokens", "value": 10**6}}):
        messages = await asked(http, pool, edited({"type": TOOL_USES, **trigger}, messages=long))
        assert results(messages)[0] == CLEARED
    wanted = edited({"type": TOOL_USES, **trigger}, messages=long)
    response = await http.post(MESSAGES, json=wanted)
    said = f"context_management.edits[0].trigger={CONTEXT * 3 // 4}"
    assert response.headers["x-dragoman-clamped"] == said


async def test_several_edits_follow_each_other(http: httpx.AsyncClient, pool: FakePool) -> None:
    clear = {"type": TOOL_USES, "trigger": ALWAYS, "keep": {"type": "tool_uses", "value": 1}}
    said = await applied(http, edited({"type": THINKING}, clear, messages=THOUGHTS))
    assert [edit["type"] for edit in said] == [THINKING, TOOL_USES]
    assert results(last(pool)) == [CLEARED, "x" * 100]


async def test_counts_are_those_after_the_edits(http: httpx.AsyncClient, pool: FakePool) -> None:
    edit = {"type": TOOL_USES, "trigger": ALWAYS}
    wanted = {"model": "test", "messages": CALLS, "context_management": {"edits": [edit]}}
    found = (await http.post(COUNT_TOKENS, json=wanted)).content
    counted = BetaMessageTokensCount.model_validate_json(found, strict=True)
    assert counted.context_management is not None
    original = counted.context_management.original_input_tokens
    assert original == 4 * (100 + len('{"a": 0}')) + len("hi")
    assert counted.input_tokens == original - 100 + len(CLEARED)


async def test_each_prompt_on_the_way_to_a_count_is_rendered_once(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    clear = {"type": TOOL_USES, "trigger": ALWAYS, "keep": {"type": "tool_uses", "value": 1}}
    management = {"edits": [{"type": THINKING}, clear]}
    wanted = {"model": "test", "messages": THOUGHTS, "context_management": management}
    assert (await http.post(COUNT_TOKENS, json=wanted)).status_code == 200
    assert len(pool.client.rendered) == 3


async def test_other_edits_are_named(http: httpx.AsyncClient) -> None:
    response = await http.post(MESSAGES, json=edited({"type": "fold_20300101"}, ALL_OF_IT))
    assert response.headers["x-dragoman-ignored"] == "context_management.edits.fold_20300101"


@pytest.mark.parametrize("edit", [{}, {"type": 5}, "clear", {"type": TOOL_USES, "keep": 3}])
async def test_a_malformed_edit_is_refused_with_its_place(
    http: httpx.AsyncClient, edit: Any
) -> None:
    response = await http.post(MESSAGES, json=edited(ALL_OF_IT, edit))
    assert assert_error(response, 400, "invalid_request_error").startswith(
        "context_management.edits[1]"
    )


# --- summaries ---

SUMMARY = "This is a summary of the conversation so far:\n\nHalf done."


async def test_a_long_conversation_is_summed_up_and_goes_on(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    wanted = edited({"type": COMPACT}, messages=LONG, system="Be brief.", tools=[TOOL])
    whole, events = await both(http, wanted)
    block, text = whole.content
    assert (block.type, text.type) == ("compaction", "text")
    assert block.model_dump()["content"] == "Half done."
    assert whole.stop_reason == "end_turn"
    assert whole.usage.iterations is not None
    assert [step.type for step in whole.usage.iterations] == ["compaction", "message"]
    assert events[-2]["usage"] == json.loads(whole.usage.model_dump_json(exclude_unset=True))
    kinds = [(event["type"], event.get("index")) for event in events[:5]]
    assert kinds == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
    ]
    assert events[2]["delta"] == {"type": "compaction_delta", "content": "Half done."}
    task, going_on = (request.prompt for request in pool.client.requests[:2])
    assert task.messages[-1].content == SUMMARY_TASK  # type: ignore[union-attr]
    # What stands behind the tools comes from the cache.
    assert task.tools == going_on.tools  # type: ignore[union-attr]
    assert [(turn.role, turn.content) for turn in going_on.messages] == [  # type: ignore[union-attr]
        ("system", "Be brief."),
        ("user", SUMMARY),
    ]
    assert [tool.name for tool in going_on.tools] == ["add"]  # type: ignore[union-attr]


async def test_a_begun_answer_goes_on_behind_the_summary(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    begun = {"role": "assistant", "content": "Well,"}
    wanted = edited({"type": COMPACT}, messages=[*LONG, begun], system="Be brief.")
    said = [(turn.role, turn.content) for turn in await asked(http, pool, wanted)]
    assert said == [("system", "Be brief."), ("user", SUMMARY), ("assistant", "Well,")]
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.continue_final_message


async def test_a_model_that_calls_in_place_of_a_summary_is_asked_again_without_tools(
    connect: Connect,
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        assert isinstance(request.prompt, ChatPrompt)
        if request.prompt.tools and request.reasoning_budget == 0:
            called = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'
            return answer(request, called, tools_active=True)
        return answer(request, "Done.")

    pool = FakePool(script, builtin_format("hermes"))
    pool.client.letters_are_tokens = True
    asked = edited({"type": COMPACT}, messages=LONG, tools=[TOOL])
    response = await connect(pool).post(MESSAGES, json=asked)
    compaction, text = response.json()["content"]
    assert (compaction["content"], text["text"]) == ("Done.", "Done.")
    offered = [len(request.prompt.tools) for request in pool.client.requests]  # type: ignore[union-attr]
    assert offered == [1, 0, 1]


async def test_the_sdk_adds_the_events_up_to_the_whole_answer(pool: FakePool) -> None:
    asked = edited(ALL_OF_IT, {"type": COMPACT}, messages=LONG)
    app = create_app(Settings(), pool)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
        claude = AsyncAnthropic(
            api_key="x", base_url="http://127.0.0.1:8000", http_client=client, max_retries=0
        )
        whole = await claude.beta.messages.create(**asked)
        async with claude.beta.messages.stream(**asked) as stream:
            added_up = await stream.get_final_message()
        beyond = {"context_management": asked.pop("context_management")}
        async with claude.messages.stream(**asked, extra_body=beyond) as stream_without_betas:
            block, *_ = (await stream_without_betas.get_final_message()).content
    await app.state.context.store.close()
    assert added_up.model_dump(exclude={"id"}) == whole.model_dump(exclude={"id"})
    assert block.content == "Half done."  # type: ignore[union-attr]


async def test_the_next_request_begins_as_the_summary_left_it(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    wanted = edited({"type": COMPACT}, messages=LONG, system="Be brief.")
    whole = (await http.post(MESSAGES, json=wanted)).json()
    before = last(pool)
    more = [*LONG, {"role": "assistant", "content": whole["content"]}, USER]
    after = await asked(http, pool, {**wanted, "messages": more})
    assert after[: len(before)] == before
    assert [turn.content for turn in after[len(before) :]] == ["Done.", "hi"]


@pytest.mark.parametrize(
    ("trigger", "messages"),
    [({"type": "input_tokens", "value": 5000}, LONG[:1]), (None, [USER, SAID, USER])],
)
async def test_a_short_conversation_is_not_summed_up(
    http: httpx.AsyncClient, pool: FakePool, trigger: Any, messages: list[Any]
) -> None:
    whole, _ = await both(http, edited({"type": COMPACT, "trigger": trigger}, messages=messages))
    assert [block.type for block in whole.content] == ["text"]
    assert pool.client.rendered == []


async def test_an_answer_that_pauses_is_the_summary_alone(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    edit = {"type": COMPACT, "pause_after_compaction": True, "instructions": "Only names."}
    whole, events = await both(http, edited(edit, messages=LONG))
    assert whole.stop_reason == events[-2]["delta"]["stop_reason"] == "compaction"
    assert [block.model_dump()["content"] for block in whole.content] == ["Half done."]
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [turn.content for turn in last(pool)][-1] == "Only names."
    assert len(pool.client.requests) == 2


@pytest.mark.parametrize("pauses", [False, True])
async def test_a_summary_leaves_room_in_the_context_for_what_comes_next(
    http: httpx.AsyncClient, pool: FakePool, pauses: bool
) -> None:
    edit = {"type": COMPACT, "pause_after_compaction": pauses}
    await asked(http, pool, edited(edit, messages=LONG, max_tokens=CONTEXT))
    assert pool.client.requests[0].max_tokens == CONTEXT // 8


@pytest.mark.parametrize(
    ("instructions", "task"),
    [(None, SUMMARY_TASK), (" ", SUMMARY_TASK), ("In rhyme.", "In rhyme.")],
)
async def test_a_request_for_a_compaction_is_answered_with_one(
    http: httpx.AsyncClient, pool: FakePool, instructions: str | None, task: str
) -> None:
    compaction = {"type": "summarize", "instructions": instructions}
    fields = {"stop_sequences": ["x"], "tools": [TOOL], "tool_choice": {"type": "any"}}
    whole, events = await both(http, body(messages=LONG, compaction=compaction, **fields))
    assert whole.stop_reason == events[-2]["delta"]["stop_reason"] == "compaction"
    assert [block.model_dump()["content"] for block in whole.content] == ["Half done."]
    request = pool.client.requests[-1]
    assert last(pool)[-1] == Message(role="user", content=task)
    assert (request.stop, request.constraint, request.max_tokens) == ([], None, 100)
    assert request.prompt.tools == []  # type: ignore[union-attr]
    again = [{"role": "assistant", "content": [whole.content[0].model_dump()]}, USER]
    (summary, _) = await asked(http, pool, body(messages=again))
    assert summary.content == SUMMARY


async def test_such_a_summary_leaves_room_in_the_context_too(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    wanted = body(messages=LONG, compaction={"type": "summarize"}, max_tokens=CONTEXT)
    await asked(http, pool, wanted)
    assert pool.client.requests[-1].max_tokens == CONTEXT // 8


async def test_a_model_that_takes_no_tools_sums_up_without(connect: Connect) -> None:
    """Where no call is allowed a conversation may have tools with any model."""
    pool = answering()
    script = pool.client.script

    def without_calls(request: GenerationRequest) -> Iterable[Any]:
        assert isinstance(request.prompt, ChatPrompt)
        if request.prompt.tools and request.prompt.tool_choice.mode != "none":
            error = InvalidRequest("It is not known how it calls.", at=("tools",))
            return [Failed(id=1, error=error.info)]
        return script(request)

    pool.client.script = without_calls
    wanted = edited({"type": COMPACT}, messages=LONG, tools=[TOOL], tool_choice={"type": "none"})
    response = await connect(pool).post(MESSAGES, json=wanted)
    assert response.json()["content"][0] == {"type": "compaction", "content": "Half done."}
    offered = [request.prompt.tools for request in pool.client.requests]  # type: ignore[union-attr]
    assert list(map(bool, offered)) == [True, False, True]


async def test_compaction_and_edits_exclude_each_other(http: httpx.AsyncClient) -> None:
    wanted = edited(ALL_OF_IT, compaction={"type": "summarize"})
    said = assert_error(await http.post(MESSAGES, json=wanted), 400, "invalid_request_error")
    assert said.startswith("compaction")


@pytest.mark.parametrize("pauses", [False, True])
async def test_of_a_conversation_that_is_too_long_to_be_summed_up_the_oldest_turns_are_left_out(
    connect: Connect, pauses: bool
) -> None:
    pool = answering(CONTEXT)
    turns = [{"role": "user", "content": f"{number}" * 300} for number in range(9)]
    edit = {"type": COMPACT, "pause_after_compaction": pauses}
    response = await connect(pool).post(MESSAGES, json=edited(edit, messages=turns))
    assert response.status_code == 200, response.text
    assert response.json()["content"][0] == {"type": "compaction", "content": "Half done."}
    summing = next(
        request.prompt.messages  # type: ignore[union-attr]
        for request in pool.client.requests
        if letters(request.prompt) <= CONTEXT and request.reasoning_budget == 0
    )
    assert [turn.content for turn in summing[-2:]] == ["8" * 300, SUMMARY_TASK]


async def test_a_conversation_that_is_too_long_is_refused_as_before_without_a_summary(
    connect: Connect,
) -> None:
    http = connect(answering(100))
    response = await http.post(MESSAGES, json=edited(ALL_OF_IT, messages=LONG))
    assert assert_error(response, 400, "invalid_request_error").startswith("prompt is too long")

"""From blocks to the canonical conversation."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from anthropic.types import MessageTokensCount

from server.api.anthropic.conversation import parse_conversation
from server.api.anthropic.schemas.messages_request import MessagesRequest
from server.core.request import ImagePart, Message, TextPart, ToolCall
from tests.api.anthropic.wire import (
    COUNT_TOKENS,
    MESSAGES,
    TOOL,
    USER,
    assert_error,
    body,
    message,
)
from tests.api.fakes import FakePool

CALL = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "ü": "ß"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"}


def text(said: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **fields}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


async def canonical(http: httpx.AsyncClient, pool: FakePool, *turns: Any, **fields: Any) -> Any:
    """The messages that the model is asked."""
    await message(http, messages=list(turns), **fields)
    return pool.client.requests[-1].prompt.messages  # type: ignore[union-attr]


@pytest.mark.parametrize("system", ["Be brief.", [text("Be brief.", cache_control={})]])
async def test_the_system_prompt_comes_first(
    http: httpx.AsyncClient, pool: FakePool, system: Any
) -> None:
    assert await canonical(http, pool, USER, system=system) == [
        Message(role="system", content="Be brief."),
        Message(role="user", content="hi"),
    ]


class Whole(str):
    """A text that may not be read letter by letter."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        raise AssertionError


def test_texts_are_not_looked_through_for_images_and_tools() -> None:
    told = {"type": "mid_conv_system", "content": "Be brief."}
    asked = MessagesRequest.model_validate(
        body(system="s", messages=[assistant(CALL), user(RESULT, told)])
    )
    calling, answering = asked.messages
    blocks = [
        block.model_copy(update={"content": Whole("2")})  # type: ignore[union-attr]
        for block in answering.content or ()
    ]
    answering = answering.model_copy(update={"content": blocks})
    asked = asked.model_copy(update={"system": Whole("s"), "messages": [calling, answering]})
    said = [turn.content for turn in parse_conversation(asked).prompt.messages]
    assert said == ["s", None, "2", "2"]


async def test_several_system_blocks_are_parts(http: httpx.AsyncClient, pool: FakePool) -> None:
    first, _ = await canonical(http, pool, USER, system=[text("One."), text(""), text("Two.")])
    assert first.content == [TextPart("One."), TextPart("Two.")]


@pytest.mark.parametrize("value", ["cc_version=2.1.328.3c9; cch=1;", "cc_version=2.1.332.fff;"])
async def test_the_line_that_differs_with_each_conversation_is_left_out_and_said(
    http: httpx.AsyncClient, pool: FakePool, value: str
) -> None:
    line = f"x-anthropic-billing-header: {value}"
    expected = [TextPart("You are an agent."), TextPart("Be brief.")]
    for system in (
        [text(line), text("You are an agent."), text("Be brief.")],
        [text(f"{line}\nYou are an agent."), text("Be brief.")],
    ):
        response = await http.post(MESSAGES, json=body(system=system))
        assert response.headers["x-dragoman-ignored"] == "system.x-anthropic-billing-header"
        assert pool.client.requests[-1].prompt.messages[0].content == expected  # type: ignore[union-attr]


async def test_the_line_is_left_out_of_a_first_system_message_too(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    line = "x-anthropic-billing-header: cch=1;"
    for content, left in ((f"{line}\nBe brief.", ["Be brief.", "hi"]), (line, ["hi"])):
        messages = [{"role": "system", "content": content}, USER]
        response = await http.post(MESSAGES, json=body(messages=messages))
        assert response.headers["x-dragoman-ignored"] == "messages.x-anthropic-billing-header"
        prompt = pool.client.requests[-1].prompt
        assert [turn.content for turn in prompt.messages] == left  # type: ignore[union-attr]


async def test_system_text_stays_where_it_stands(http: httpx.AsyncClient, pool: FakePool) -> None:
    found = await canonical(
        http,
        pool,
        USER,
        {"role": "system", "content": [text("A", cache_control={"type": "ephemeral"})]},
        assistant(text("Yes.")),
        user(text("one"), {"type": "mid_conv_system", "content": [text("B")]}, text("two")),
        {"role": "system", "content": "C"},
    )
    assert [(turn.role, turn.content) for turn in found] == [
        ("user", "hi"),
        ("system", "A"),
        ("assistant", "Yes."),
        ("user", "one"),
        ("system", "B"),
        ("user", "two"),
        ("system", "C"),
    ]


async def test_system_text_that_holds_for_one_turn_is_gone_after_it(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    note = {"role": "system", "content": "A", "clear_at": "next_user_message"}
    now = await canonical(http, pool, USER, note)
    assert [turn.role for turn in now] == ["user", "system"]
    later = await canonical(http, pool, USER, note, assistant(text("Yes.")), USER)
    assert [turn.role for turn in later] == ["user", "assistant", "user"]


async def test_results_come_before_text_and_answer_their_calls(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    second = {**CALL, "id": "toolu_2", "input": {}}
    error = {
        "type": "tool_result",
        "tool_use_id": "toolu_2",
        "is_error": True,
        "content": [text("It "), text("failed.")],
    }
    found = await canonical(
        http,
        pool,
        USER,
        assistant(text("I add."), CALL, second),
        user(text("Go on."), RESULT, error),
        tools=[TOOL],
    )
    assert found[1:] == [
        Message(
            role="assistant",
            content="I add.",
            tool_calls=[
                ToolCall(id="toolu_1", name="add", arguments='{"a": 1, "ü": "ß"}'),
                ToolCall(id="toolu_2", name="add", arguments="{}"),
            ],
        ),
        Message(role="tool", content="2", tool_call_id="toolu_1"),
        Message(role="tool", content="Error: It \nfailed.", tool_call_id="toolu_2"),
        Message(role="user", content="Go on."),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ""),
        ([], ""),
        ([{"type": "tool_reference", "tool_name": "add"}], "The tool add is available now."),
        (
            [{"type": "search_result", "source": "s", "title": "t", "content": [text("c")]}],
            "t\ns\nc",
        ),
        (
            [{"type": "document", "source": {"type": "text", "data": "d"}, "title": "t"}],
            "t\nd",
        ),
    ],
)
async def test_results_that_are_no_string(
    http: httpx.AsyncClient, pool: FakePool, content: Any, expected: str
) -> None:
    result = {**RESULT, "content": content}
    found = await canonical(http, pool, USER, assistant(CALL), user(result), tools=[TOOL])
    assert found[-1] == Message(role="tool", content=expected, tool_call_id="toolu_1")


async def test_thoughts_come_back_whoever_had_them(http: httpx.AsyncClient, pool: FakePool) -> None:
    turns = [
        USER,
        assistant(
            {"type": "thinking", "thinking": "Hm.", "signature": "EqQBCkYIBxgC"},
            {"type": "redacted_thinking", "data": "EmwKAhgB"},
            text("Yes."),
        ),
        USER,
    ]
    response = await http.post(MESSAGES, json=body(messages=turns))
    assert response.headers["x-dragoman-ignored"].split(", ") == [
        "messages.content.redacted_thinking",
        "messages.content.signature",
    ]
    found = pool.client.requests[-1].prompt.messages[1]  # type: ignore[union-attr]
    assert (found.reasoning_content, found.content) == ("Hm.", "Yes.")


@pytest.mark.parametrize("signature", [None, ""])
async def test_thoughts_without_a_signature_are_nothing_to_speak_of(
    http: httpx.AsyncClient, signature: str | None
) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": signature}
    turns = [USER, assistant(thought, text("Yes.")), USER]
    response = await http.post(MESSAGES, json=body(messages=turns))
    assert "x-dragoman-ignored" not in response.headers


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"a": 1}, '{"a": 1}'),
        ({}, "{}"),
        (None, "{}"),
        ('{"a": "cut o', '{"a": "cut o'),
    ],
)
async def test_calls_come_back_as_they_were_even_if_cut_off(
    http: httpx.AsyncClient, pool: FakePool, given: Any, arguments: str
) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "add", "input": given}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "1"}
    turns = [USER, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    found = await canonical(http, pool, *turns)
    (called,) = found[1].tool_calls
    assert called.arguments == arguments


@pytest.mark.parametrize("begun", ["The answer is (", "The answer is ", "Lines:\n\n", " ", ""])
async def test_a_last_message_of_the_assistant_is_continued_where_it_ends(
    http: httpx.AsyncClient, pool: FakePool, begun: str
) -> None:
    await message(http, messages=[USER, {"role": "assistant", "content": begun}])
    prompt = pool.client.requests[-1].prompt
    assert prompt.continue_final_message  # type: ignore[union-attr]
    assert not prompt.add_generation_prompt  # type: ignore[union-attr]
    assert prompt.messages[-1].content == begun  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "kind",
    [
        *("server_tool_use", "web_search_tool_result", "web_fetch_tool_result"),
        *("code_execution_tool_result", "bash_code_execution_tool_result"),
        *("text_editor_code_execution_tool_result", "tool_search_tool_result"),
        *("advisor_tool_result", "mcp_tool_use", "mcp_tool_result", "mcp_tool_listing"),
        *("container_upload", "fallback", "redacted_thinking", "one_of_next_year"),
    ],
)
async def test_blocks_of_tools_that_anthropic_ran_are_left_out_and_named(
    http: httpx.AsyncClient, pool: FakePool, kind: str
) -> None:
    block = {"type": kind, "id": "x", "tool_use_id": "x", "content": []}
    turns = [USER, assistant(block, text("Yes.")), USER]
    response = await http.post(MESSAGES, json=body(messages=turns))
    assert response.headers["x-dragoman-ignored"] == f"messages.content.{kind}"
    said = pool.client.requests[-1].prompt.messages[1]  # type: ignore[union-attr]
    assert said == Message(role="assistant", content="Yes.")


async def test_marks_of_the_cache_are_named_wherever_they_stand(http: httpx.AsyncClient) -> None:
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "d"},
        **mark,
    }
    turns = [
        user(text("a", **mark), document),
        assistant(text("b"), {**CALL, **mark}),
        user({**RESULT, "content": [text("c", **mark)], **mark}),
    ]
    fields = {"system": [text("s", **mark)], "tools": [{**TOOL, **mark}], **mark}
    for path in (MESSAGES, COUNT_TOKENS):
        asked = {"model": "test", "messages": turns, **fields}
        response = await http.post(path, json=asked if path == COUNT_TOKENS else body(**asked))
        assert response.status_code == 200, response.text
        assert response.headers["x-dragoman-ignored"].split(", ") == [
            "cache_control",
            "messages.content.cache_control",
            "messages.content.content.cache_control",
            "system.cache_control",
            "tools.cache_control",
        ]


async def test_a_deferred_tool_is_offered_once_it_was_referred_to(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    tools = [TOOL, {**TOOL, "name": "fetch", "defer_loading": True}]
    reference = {**RESULT, "content": [{"type": "tool_reference", "tool_name": "fetch"}]}
    addition = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "fetch"}}
    for turns, offered in (
        ([USER], ["add"]),
        ([USER, assistant(CALL), user(reference)], ["add", "fetch"]),
        ([USER, {"role": "system", "content": [addition]}], ["add", "fetch"]),
    ):
        await message(http, messages=turns, tools=tools)
        prompt = pool.client.requests[-1].prompt
        assert [tool.name for tool in prompt.tools] == offered  # type: ignore[union-attr]


async def test_tokens_are_counted_without_an_answer(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    asked = {"model": "alias", "messages": [USER], "tools": [], "metadata": {}}
    response = await http.post(f"{COUNT_TOKENS}?beta=true", json=asked)
    assert response.status_code == 200, response.text
    found = MessageTokensCount.model_validate_json(response.content, strict=True)
    assert found.input_tokens == 2
    assert response.headers["x-dragoman-ignored"] == "metadata"
    assert pool.client.requests == []
    (prompt,) = pool.client.rendered
    assert prompt.messages == [Message(role="user", content="hi")]  # type: ignore[union-attr]


async def test_what_makes_the_prompt_has_the_same_names_as_in_messages(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    asked = {"model": "test", "messages": [USER], "think": False, "options": {"think": False}}
    response = await http.post(COUNT_TOKENS, json=asked)
    assert response.status_code == 200, response.text
    (prompt,) = pool.client.rendered
    await message(http, **asked)
    assert prompt == pool.client.requests[-1].prompt
    assert prompt.template_kwargs == {"enable_thinking": False}  # type: ignore[union-attr]


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("One.", "t\nc\nOne."),
        ([text("One."), text("Two.")], "t\nc\nOne.\nTwo."),
        (
            [text("One."), IMAGE],
            [TextPart("t"), TextPart("c"), TextPart("One."), ImagePart(b"\x89PNG\r\n\x1a\n")],
        ),
        ([], "t\nc"),
    ],
)
async def test_a_document_of_blocks_is_what_its_blocks_are(
    http: httpx.AsyncClient, pool: FakePool, content: Any, expected: Any
) -> None:
    pool.see()
    source = {"type": "content", "content": content}
    document = {"type": "document", "source": source, "title": "t", "context": "c"}
    said = await canonical(http, pool, user(document))
    assert said == [Message(role="user", content=expected)]
    result = {**RESULT, "content": [document]}
    found = await canonical(http, pool, USER, assistant(CALL), user(result), tools=[TOOL])
    assert found[-1].content == expected


def file(data: bytes, kind: str) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    source = {"type": "base64", "media_type": kind, "data": encoded}
    return {"type": "document", "source": source}


PDF = file(b"%PDF-1.7\n", "application/pdf")


@pytest.mark.parametrize("kind", ["text/plain", "text/csv", "application/octet-stream"])
async def test_a_file_that_is_text_is_read(
    http: httpx.AsyncClient, pool: FakePool, kind: str
) -> None:
    document = {**file("ü,1\n".encode(), kind), "title": "a.csv"}
    assert (await canonical(http, pool, user(document)))[0].content == "a.csv\nü,1\n"
    result = {**RESULT, "content": [document]}
    found = await canonical(http, pool, USER, assistant(CALL), user(result), tools=[TOOL])
    assert found[-1].content == "a.csv\nü,1\n"


async def test_a_thousand_turns_and_a_result_of_10_mb_are_read(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    turns = [turn for _ in range(499) for turn in (USER, {"role": "assistant", "content": "a"})]
    result = {**RESULT, "content": "x" * 10_000_000}
    found = await canonical(http, pool, *turns, assistant(CALL), user(result), tools=[TOOL])
    assert len(found) == 1000
    assert len(found[-1].content or "") == 10_000_000


@pytest.mark.parametrize(
    ("turn", "place"),
    [
        (user(text("?"), PDF), "messages[0].content[1]"),
        (user(file(b"\xff\xd8", "text/plain")), "messages[0].content[0]"),
        (
            user({"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}}),
            "messages[0].content[0]",
        ),
        (user({"type": "container_upload", "file_id": "f"}), "messages[0].content[0]"),
        (user({**RESULT, "content": [PDF]}), "messages[0].content[0].content[0]"),
        (
            user({"type": "document", "source": {"type": "content", "content": [PDF]}}),
            "messages[0].content[0].source.content[0]",
        ),
    ],
)
async def test_a_block_that_is_no_text_is_named(
    http: httpx.AsyncClient, turn: Any, place: str
) -> None:
    for path in (MESSAGES, COUNT_TOKENS):
        response = await http.post(path, json=body(messages=[turn]))
        said = assert_error(response, 400, "invalid_request_error")
        assert said.startswith(f"{place}: ")

"""Tools that come and go within a conversation, and choices of tools that are not offered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.core.errors import InvalidConstraint
from server.core.events import Event, Failed
from server.core.request import GenerationRequest, Tool, ToolChoice
from tests.api.anthropic.wire import MESSAGES, TOOL, USER, assert_error, body
from tests.api.fakes import FakePool

FETCH = {**TOOL, "name": "fetch"}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def change(kind: str, **tool: Any) -> dict[str, Any]:
    return {"type": f"tool_{kind}", "tool": tool}


def removed(name: str) -> dict[str, Any]:
    return change("removal", type="tool_reference", name=name)


def added(name: str) -> dict[str, Any]:
    return change("addition", type="tool_reference", name=name)


def defined(tool: dict[str, Any]) -> dict[str, Any]:
    return change("addition", type="tool_definition", definition=tool)


def system(*blocks: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "system", "content": list(blocks), **fields}


async def offered(
    http: httpx.AsyncClient, pool: FakePool, *turns: Any, **fields: Any
) -> tuple[list[str], str | None]:
    """The names of the tools that the model gets, and what the answer says is ignored."""
    response = await http.post(MESSAGES, json=body(messages=[USER, *turns], **fields))
    assert response.status_code == 200, response.text
    prompt = pool.client.requests[-1].prompt
    names = [tool.name for tool in prompt.tools]  # type: ignore[union-attr]
    return names, response.headers.get("x-dragoman-ignored")


@pytest.mark.parametrize(
    ("turns", "names"),
    [
        ([system(removed("add"))], ["fetch"]),
        ([system(removed("add")), USER, system(added("add"))], ["add", "fetch"]),
        ([system(added("add")), USER, system(removed("add"), removed("fetch"))], []),
        # Its text is cleared, what it says of tools is not.
        ([system(removed("add"), clear_at="next_user_message"), USER], ["fetch"]),
        ([{"role": "user", "content": [removed("add")]}], ["fetch"]),
    ],
)
async def test_a_removed_tool_is_offered_no_longer(
    http: httpx.AsyncClient, pool: FakePool, turns: Any, names: list[str]
) -> None:
    assert await offered(http, pool, *turns, tools=[TOOL, FETCH]) == (names, None)
    assert [turn.role for turn in pool.client.requests[-1].prompt.messages] == [  # type: ignore[union-attr]
        "user" for turn in [USER, *turns] if turn is USER
    ]


async def test_a_conversation_may_bring_tools_of_its_own(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    late = {"name": "late", "description": "Comes late.", "input_schema": {"type": "object"}}
    other = {**TOOL, "description": "Adds otherwise."}
    turns = [system(defined(late)), USER, system(defined(other))]
    assert await offered(http, pool, *turns, tools=[TOOL]) == (["add", "late"], None)
    tools = pool.client.requests[-1].prompt.tools  # type: ignore[union-attr]
    assert tools[0].description == "Adds otherwise."
    assert tools[1] == Tool(name="late", description="Comes late.", parameters={"type": "object"})
    assert await offered(http, pool, *turns, system(removed("late"))) == (["add"], None)


@pytest.mark.parametrize(
    ("turn", "place"),
    [
        (system({"type": "text", "text": "!"}, defined(FETCH)), "content[1]"),
        (
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "compaction",
                        "content": "s",
                        "tool_changes": [removed("add"), defined(FETCH)],
                    }
                ],
            },
            "content[0].tool_changes[1]",
        ),
    ],
)
async def test_an_error_in_such_a_tool_names_its_place(connect: Any, turn: Any, place: str) -> None:
    error = InvalidConstraint("{place} is bad.", at=("tools", 0, "parameters"))

    def script(request: GenerationRequest) -> list[Event]:
        return [Failed(id=1, error=error.info)]

    asked = body(messages=[USER, turn])
    response = await connect(FakePool(script)).post(MESSAGES, json=asked)
    place = f"messages[1].{place}.tool.definition.input_schema"
    assert assert_error(response, 400, "invalid_request_error") == f"{place} is bad."


async def test_what_is_no_function_is_named(http: httpx.AsyncClient, pool: FakePool) -> None:
    toolset = change("removal", type="mcp_tool_reference", server_name="s", name="add")
    turns = [system(defined(SEARCH), toolset)]
    names, ignored = await offered(http, pool, *turns, tools=[TOOL])
    assert names == ["add"]
    assert ignored is not None
    assert {"messages.content.tool_addition", "messages.content.tool_removal"} <= set(
        ignored.split(", ")
    )


async def test_a_summary_of_another_server_stands_as_text_with_its_changes_of_tools(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    summary = {"type": "compaction", "content": "It was fixed.", "tool_changes": [removed("add")]}
    failed = {"type": "compaction", "content": None}
    text = {"type": "text", "text": "On it."}
    for content, roles in (
        ([summary], ["system", "user", "user"]),
        ([summary, text], ["system", "user", "assistant", "user"]),
        ([text, summary], ["system", "user", "user"]),
        ([failed, text], ["system", "user", "assistant", "user"]),
        ([failed], ["system", "user", "user"]),
    ):
        turns = [{"role": "assistant", "content": content}, USER]
        names, ignored = await offered(http, pool, *turns, system="s", tools=[TOOL, FETCH])
        assert (names == ["fetch"], ignored) == (summary in content, None)
        messages = pool.client.requests[-1].prompt.messages  # type: ignore[union-attr]
        assert [turn.role for turn in messages] == roles
        if summary in content:
            assert str(messages[1].content).endswith("\n\nIt was fixed.")


async def test_a_summary_stands_for_all_messages_before_it(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    call = {"type": "tool_use", "id": "c", "name": "add", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": "2"}
    turns = [
        {"role": "assistant", "content": [{"type": "compaction", "content": "The first."}]},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        system(defined(FETCH), {"type": "text", "text": "Be brief."}),
        {"role": "assistant", "content": [{"type": "compaction", "content": "The second."}]},
        USER,
    ]
    assert await offered(http, pool, *turns, tools=[TOOL]) == (["add", "fetch"], None)
    first, last = pool.client.requests[-1].prompt.messages  # type: ignore[union-attr]
    assert str(first.content).endswith("\n\nThe second.")
    assert last.content == "hi"


@pytest.mark.parametrize(
    ("tools", "choice", "expected"),
    [
        ([SEARCH], {"type": "tool", "name": "web_search"}, ToolChoice()),
        ([SEARCH], {"type": "any"}, ToolChoice()),
        (
            [SEARCH, TOOL],
            {"type": "tool", "name": "web_search", "disable_parallel_tool_use": True},
            ToolChoice(parallel=False),
        ),
    ],
)
async def test_a_choice_that_only_tools_of_anthropic_s_fit_is_left_out(
    http: httpx.AsyncClient, pool: FakePool, tools: Any, choice: Any, expected: ToolChoice
) -> None:
    _, ignored = await offered(http, pool, tools=tools, tool_choice=choice)
    assert ignored == "tool_choice, tools.web_search_20250305"
    assert pool.client.requests[-1].prompt.tool_choice == expected  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["web_search", "web_search_20250305", "allowed_tools"])
async def test_a_choice_in_words_of_another_api_is_left_out_and_named(
    http: httpx.AsyncClient, pool: FakePool, kind: str
) -> None:
    names, ignored = await offered(http, pool, tools=[TOOL], tool_choice={"type": kind})
    assert (names, ignored) == (["add"], f"tool_choice.{kind}")
    assert pool.client.requests[-1].prompt.tool_choice == ToolChoice()  # type: ignore[union-attr]


async def test_any_means_one_of_those_that_are_offered(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    _, ignored = await offered(http, pool, tools=[SEARCH, TOOL], tool_choice={"type": "any"})
    assert ignored == "tools.web_search_20250305"
    assert pool.client.requests[-1].prompt.tool_choice.mode == "required"  # type: ignore[union-attr]


async def test_a_deferred_tool_that_must_be_called_is_offered(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    tools = [TOOL, {**FETCH, "defer_loading": True}]
    names, _ = await offered(http, pool, tools=tools, tool_choice={"type": "tool", "name": "fetch"})
    assert names == ["add", "fetch"]

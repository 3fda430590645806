"""``context_management``: a conversation that is summed up, and goes on in the same response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from server.api.summary import SUMMARY_TASK
from tests.api.fakes import CONTEXT, FakePool
from tests.api.responses.test_background import begin, follow, parsed, until
from tests.api.responses.test_compaction_item import summary
from tests.api.responses.test_state import fetch, prompt
from tests.api.responses.wire import raw, respond, stream, types
from tests.api.summing_up import answering

Connect = Callable[..., httpx.AsyncClient]

USER = {"role": "user", "content": "Find the bug."}
LONG = [USER, {"role": "assistant", "content": "y" * 2000}, {"role": "user", "content": "Go on."}]
COMPACTION = [{"type": "compaction"}]
SUMMARY = "This is a summary of the conversation so far:\n\nHalf done."


@pytest.fixture
def pool() -> FakePool:
    return answering()


async def test_a_response_begins_with_the_summary_and_goes_on(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    events = await stream(http, input=LONG, instructions="Brief.", context_management=COMPACTION)
    kinds = types(events)
    assert kinds[2:6] == [
        "output_item.added",
        "compaction.compacting",
        "output_item.done",
        "output_item.added",
    ]
    whole = await respond(http, input=LONG, context_management=COMPACTION)
    for output in (events[-1]["response"]["output"], whole.model_dump()["output"]):
        compaction, message = output
        assert summary(compaction) == "Half done."
        assert message["content"][0]["text"] == "Done."
    task, going_on = (request.prompt for request in pool.client.requests[:2])
    assert task.messages[-1].content == SUMMARY_TASK  # type: ignore[union-attr]
    assert [(turn.role, turn.content) for turn in going_on.messages] == [  # type: ignore[union-attr]
        ("system", "Brief."),
        ("user", "Find the bug."),
        ("user", "Go on."),
        ("user", SUMMARY),
    ]


@pytest.mark.parametrize("state", ["previous_response_id", "input"])
async def test_the_next_request_begins_as_the_summary_left_it(
    http: httpx.AsyncClient, pool: FakePool, state: str
) -> None:
    made = (await raw(http, input=LONG, context_management=COMPACTION)).json()
    before = prompt(pool)
    fields = {"input": [USER], "previous_response_id": made["id"]}
    if state == "input":
        fields = {"input": [*LONG, *made["output"], USER]}
    await raw(http, context_management=COMPACTION, **fields)
    assert prompt(pool)[: len(before)] == before
    assert prompt(pool)[len(before) :] == [("assistant", "Done."), ("user", "Find the bug.")]


async def test_a_later_summary_takes_the_place_of_the_one_before(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    made = (await raw(http, input=LONG, context_management=COMPACTION)).json()
    more = [*LONG, *made["output"], {"role": "assistant", "content": "z" * 2000}]
    await raw(http, input=more, context_management=COMPACTION)
    assert [said for _, said in prompt(pool)] == ["Find the bug.", "Go on.", SUMMARY]


@pytest.mark.parametrize(
    ("entries", "given"),
    [
        ([{"type": "compaction", "compact_threshold": 5000}], LONG[:1]),
        (COMPACTION, [USER, {"role": "assistant", "content": "Yes."}, USER]),
        # What users say stays beside a summary, so that one would help no request.
        (COMPACTION, [{"role": "user", "content": "y" * 2000}, *LONG[2:]]),
        ([{"type": "fold"}], LONG),
        ([], LONG),
    ],
)
async def test_where_there_is_no_need_nothing_is_summed_up(
    http: httpx.AsyncClient, pool: FakePool, entries: Any, given: Any
) -> None:
    made = await respond(http, input=given, context_management=entries)
    assert [item.type for item in made.output] == ["message"]
    assert pool.client.rendered == []


async def test_what_of_it_does_not_hold_is_said(http: httpx.AsyncClient) -> None:
    entries = [{"type": "fold"}, {"type": "compaction", "compact_threshold": 10**6}, *COMPACTION]
    answered = await raw(http, input=LONG, context_management=entries)
    said = answered.headers["x-dragoman-ignored"]
    assert said == "context_management[0] (fold), context_management[2] (compaction)"
    limit = f"context_management[1].compact_threshold={CONTEXT * 3 // 4}"
    assert answered.headers["x-dragoman-clamped"] == limit


async def test_a_conversation_that_the_context_does_not_hold_goes_on_from_its_summary(
    connect: Connect,
) -> None:
    pool = answering(CONTEXT)
    turns = [{"role": "assistant", "content": f"{number}" * 300} for number in range(9)]
    given = [turn for said in turns for turn in (USER, said)]
    made = await respond(connect(pool), input=given, context_management=COMPACTION)
    assert [item.type for item in made.output] == ["compaction", "message"]
    assert prompt(pool)[-1] == ("user", SUMMARY)


async def test_without_a_summary_it_goes_on_as_it_was(connect: Connect) -> None:
    pool = answering(summed_up=("<think>Hm.</think>",))
    made = await respond(connect(pool), input=LONG, context_management=COMPACTION)
    assert [item.type for item in made.output] == ["message"]
    assert len(prompt(pool)) == len(LONG)


async def test_it_is_made_in_the_background_too(http: httpx.AsyncClient) -> None:
    name = await begin(http, input=LONG, context_management=COMPACTION)
    done = await until(http, name, "completed")
    assert summary(done["output"][0]) == "Half done."
    assert types(parsed(await follow(http, name)))[-1] == "completed"
    assert (await fetch(http, name))["output"] == done["output"]

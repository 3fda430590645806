"""A `compaction_trigger` at the end of the input: a summary in place of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import httpx
import msgspec
import pytest
from openai.types.responses import ResponseCompactionItem

from server.api.openai.responses.packing import Unpacker, packed
from server.api.summary import SUMMARY_TASK
from server.core.errors import WorkerDied
from server.core.events import Accepted, Delta, Event, Failed, FinishReason
from server.core.request import GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import CONTEXT, FakePool, answer
from tests.api.responses.test_background import begin, follow, parsed, until
from tests.api.responses.test_state import crowded, fetch, items, prompt
from tests.api.responses.wire import raw, read_events, respond, stream, types
from tests.api.wire import assert_error

Connect = Callable[..., httpx.AsyncClient]

TRIGGER = {"type": "compaction_trigger"}
USER = {"role": "user", "content": "Find the bug."}
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}
TALK: list[dict[str, Any]] = [
    USER,
    {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "a.py:1"},
    {"role": "assistant", "content": "It is in a.py."},
]
EVENTS = [
    "created",
    "in_progress",
    "output_item.added",
    "compaction.compacting",
    "output_item.done",
    "completed",
]


def summing(*texts: str, reason: FinishReason = "stop") -> FakePool:
    """A model that thinks, and then writes these texts."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, "<think>Hm.</think>", *texts, reason=reason)

    return FakePool(script, builtin_format("hermes"))


def summary(item: Any) -> str | None:
    found = ResponseCompactionItem.model_validate(item, strict=True)
    return Unpacker().text(found.encrypted_content, "compaction")


async def test_the_answer_is_one_item_streamed_and_whole(connect: Connect) -> None:
    pool = summing("The bug ", "is in a.py.")
    http = connect(pool)
    whole = (await raw(http, input=[*TALK, TRIGGER], tools=[LOOK])).json()
    events = await stream(http, input=[*TALK, TRIGGER], tools=[LOOK])
    assert types(events) == EVENTS
    assert events[2]["item"]["encrypted_content"] == ""
    for response in (whole, events[-1]["response"]):
        (item,) = response["output"]
        assert (response["status"], summary(item)) == ("completed", "The bug is in a.py.")
    assert events[3]["item_id"] == events[4]["item"]["id"]


async def test_the_model_is_asked_for_the_summary_alone(connect: Connect) -> None:
    pool = summing("Yes.")
    asked = {
        "input": [*TALK, TRIGGER],
        "tools": [LOOK],
        "tool_choice": "required",
        "text": {"format": {"type": "json_object"}},
        "include": ["message.output_text.logprobs"],
        "stop": ["x"],
        "stop_token_ids": [5],
        "min_tokens": 3000,
        "ignore_eos": True,
    }
    answered = await raw(connect(pool), **asked)
    assert "x-dragoman-ignored" not in answered.headers
    request = pool.client.requests[-1]
    assert [role for role, _ in prompt(pool)] == ["user", "assistant", "tool", "assistant", "user"]
    assert prompt(pool)[-1][1].startswith("Sum up this conversation")
    assert request.prompt.tools == []  # type: ignore[union-attr]
    assert (request.constraint, request.logprobs, request.stop) == (None, None, [])
    assert (request.max_tokens, request.reasoning_budget) == (CONTEXT // 8, 0)
    assert (request.min_tokens, request.stop_token_ids, request.ignore_eos) == (0, [], False)


async def test_a_summary_at_its_limit_is_complete(connect: Connect) -> None:
    pool = summing("The bug is in", reason="length")
    made = await respond(connect(pool), input=[*TALK, TRIGGER], max_output_tokens=5)
    assert pool.client.requests[-1].max_tokens == 5
    assert (made.status, made.incomplete_details) == ("completed", None)
    assert summary(made.output[0].model_dump()) == "The bug is in"


async def test_a_summary_leaves_room_in_the_context(connect: Connect) -> None:
    pool = summing("Yes.")
    pool.client.info = msgspec.structs.replace(pool.client.info, context=800)
    http = connect(pool)
    for asked, most in ((None, 100), (1000, 100), (50, 50)):
        await raw(http, input=[*TALK, TRIGGER], max_output_tokens=asked)
        assert pool.client.requests[-1].max_tokens == most


async def test_a_conversation_that_is_too_long_is_summed_up_without_its_beginning(
    connect: Connect,
) -> None:
    given = [{"role": "user", "content": f"{n}" * 200} for n in range(5)]
    answered = await raw(connect(crowded(700)), input=[*given, TRIGGER])
    assert answered.headers["x-dragoman-ignored"].startswith("input[0]")
    assert [item["type"] for item in answered.json()["output"]] == ["compaction"]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/compact"])
@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (1000, ["do it", "4", "5"]),
        (500, ["do it"]),
        # The rest of the conversation is one message that is too long itself.
        (320, []),
    ],
)
async def test_the_work_of_the_last_turn_is_summed_up_as_far_as_there_is_room(
    connect: Connect, path: str, most: int, kept: list[str]
) -> None:
    pool = crowded(most)
    given: list[dict[str, Any]] = [
        {"role": "user", "content": "x" * 100},
        {"role": "user", "content": "do it" * 10},
    ]
    for number in range(6):
        call = {"type": "function_call", "call_id": f"{number}", "name": "f", "arguments": "{}"}
        output = f"{number}" * 150
        given += [call, {"type": "function_call_output", "call_id": f"{number}", "output": output}]
    tail = [TRIGGER] if path == "/v1/responses" else []
    body = {"model": "test", "input": [*given, *tail]}
    answered = await connect(pool).post(path, json=body)
    assert answered.status_code == 200, answered.text
    *before, (role, task) = prompt(pool)
    assert (role, task) == ("user", SUMMARY_TASK)
    assert [said for who, said in before if who == "user"] == ["do it" * 10][: len(kept)]
    assert [said[0] for who, said in before if who == "tool"] == kept[1:]


@pytest.mark.parametrize("state", ["previous_response_id", "conversation", "input"])
async def test_the_summary_stands_for_all_but_what_users_said(connect: Connect, state: str) -> None:
    pool = summing("The bug is in a.py.")
    http = connect(pool)
    talk = (await http.post("/v1/conversations", json={})).json()["id"]
    origin = {"conversation": talk} if state == "conversation" else {}
    made = await respond(http, input=[*TALK, TRIGGER], **origin)
    if state == "previous_response_id":
        origin = {state: made.id}
    before = [*TALK, made.output[0].model_dump()] if state == "input" else []
    await raw(http, input=[*before, {"role": "user", "content": "Fix it."}], **origin)
    asked, stands, then = prompt(pool)
    assert (asked, then) == (("user", "Find the bug."), ("user", "Fix it."))
    assert stands[1].endswith("The bug is in a.py.")


async def test_a_later_summary_stands_for_an_earlier_one(connect: Connect) -> None:
    pool = summing("Done.")
    http = connect(pool)
    told = [
        {"type": "compaction", "encrypted_content": packed(text, "compaction")} for text in "ab"
    ]
    await raw(http, input=[USER, told[0], {"role": "assistant", "content": "x"}, told[1], USER])
    asked, stands, then = prompt(pool)
    assert asked == then == ("user", "Find the bug.")
    assert stands[1].endswith("\n\nb")


async def test_a_summary_without_text_stands_for_nothing(connect: Connect) -> None:
    pool = summing("Done.")
    empty = {"type": "compaction", "encrypted_content": packed("", "compaction")}
    await raw(connect(pool), input=[*TALK, empty, USER])
    assert [role for role, _ in prompt(pool)] == ["user", "assistant", "tool", "assistant", "user"]


async def test_it_is_stored_listed_and_streamed_again(connect: Connect) -> None:
    http = connect(summing("Done."))
    made = (await raw(http, input=[USER, TRIGGER])).json()
    assert await fetch(http, made["id"]) == made
    listed = (await fetch(http, f"{made['id']}/input_items", order="asc"))["data"]
    assert [item["type"] for item in listed] == ["message"]
    again = await http.get(f"/v1/responses/{made['id']}", params={"stream": "true"})
    events = read_events(again.content)
    assert types(events) == EVENTS
    assert events[-1]["response"] == made


async def test_it_is_made_in_the_background(connect: Connect) -> None:
    http = connect(summing("Done."))
    name = await begin(http, input=[USER, TRIGGER])
    done = await until(http, name, "completed")
    assert summary(done["output"][0]) == "Done."
    assert types(parsed(await follow(http, name)))[-2:] == ["output_item.done", "completed"]


async def test_half_a_summary_is_none(connect: Connect) -> None:
    def script(_: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Delta(id=1, index=0, text="The bug", tokens=1)
        yield Failed(id=1, error=WorkerDied("It died.").info)

    http = connect(FakePool(script))
    events = read_events((await raw(http, input=[USER, TRIGGER], stream=True)).content)
    failed = events[-1]["response"]
    assert (failed["status"], failed["output"]) == ("failed", [])
    assert await items(http, failed["id"])


async def test_a_trigger_elsewhere_has_no_effect_and_is_named(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    answered = await raw(http, input=[USER, TRIGGER, USER])
    assert answered.headers["x-dragoman-ignored"] == "input[1] (compaction_trigger)"
    assert [role for role, _ in prompt(pool)] == ["user", "user"]


async def test_nothing_cannot_be_summed_up(http: httpx.AsyncClient) -> None:
    refused = await http.post("/v1/responses", json={"model": "test", "input": [TRIGGER]})
    assert_error(refused, 400, param="input")


async def test_blobs_of_a_request_unpack_to_no_more_than_a_limit_together(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    large = {"type": "reasoning", "summary": [], "encrypted_content": packed("x" * (9 << 20))}
    said = {"role": "assistant", "content": "a"}
    answered = await raw(http, input=[USER, large, said, USER, large, said, USER])
    assert answered.headers["x-dragoman-ignored"] == "input[4].encrypted_content"
    messages = pool.client.requests[-1].prompt.messages  # type: ignore[union-attr]
    thoughts = [len(message.reasoning_content or "") for message in messages]
    assert thoughts == [0, 9 << 20, 0, 0, 0]


async def test_only_the_last_summary_is_unpacked(http: httpx.AsyncClient, pool: FakePool) -> None:
    told = [
        {"type": "compaction", "encrypted_content": packed(text, "compaction")}
        for text in ("x" * (15 << 20), "y" * (15 << 20), "b")
    ]
    answered = await raw(http, input=[USER, *told, USER])
    assert "x-dragoman-ignored" not in answered.headers
    assert prompt(pool)[1][1].endswith("\n\nb")

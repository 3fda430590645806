"""Responses are stored, gone on from, listed and deleted; each key sees its own."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from server.api.openai.responses import create
from server.api.openai.responses.parse import parse
from server.core.errors import ContextLengthExceeded, WorkerDied
from server.core.events import Accepted, Delta, Event, Failed
from server.core.request import ChatPrompt, GenerationRequest, Message, TextPart
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import CONTEXT, FakePool, answer, hello, letters
from tests.api.responses.test_output import call
from tests.api.responses.wire import checked, raw, read_events, respond, response_body, types
from tests.api.wire import assert_error

Connect = Callable[..., httpx.AsyncClient]

ME = {"authorization": "Bearer me"}
YOU = {"authorization": "Bearer you"}
_item: TypeAdapter[Any] = TypeAdapter(ResponseItem)


def prompt(pool: FakePool) -> list[tuple[str, Any]]:
    """Roles and contents of the last prompt."""
    last = pool.client.requests[-1].prompt
    assert isinstance(last, ChatPrompt)
    return [(message.role, text(message)) for message in last.messages]


def text(message: Message) -> Any:
    content = message.content
    if content is None:
        return [(call.name, call.arguments) for call in message.tool_calls]
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))


def block(folder: Path) -> None:
    """Put a file where the folder should be."""
    folder.write_text("")


def unblock(folder: Path) -> None:
    folder.unlink()


def exists(folder: Path) -> bool:
    return folder.exists()


def assert_not_found(answered: httpx.Response) -> None:
    assert_error(answered, 404, code="not_found", param="response_id")


async def fetch(http: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    found = await http.get(f"/v1/responses/{path}", params=query)
    assert found.status_code == 200, found.text
    body: dict[str, Any] = found.json()
    return body


async def items(http: httpx.AsyncClient, name: str, **query: Any) -> list[dict[str, Any]]:
    """Input items, each valid in strict mode, all pages."""
    found: list[dict[str, Any]] = []
    more = True
    while more:
        after = {"after": found[-1]["id"]} if found else {}
        page = await fetch(http, f"{name}/input_items", **{"order": "asc", **query, **after})
        for item in page["data"]:
            _item.validate_python(item, strict=True)
        assert page["first_id"] == page["data"][0]["id"]
        assert page["last_id"] == page["data"][-1]["id"]
        found += page["data"]
        more = page["has_more"]
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_fetched_as_it_was_answered(
    http: httpx.AsyncClient, *, stream: bool
) -> None:
    answered = await raw(http, stream=stream, metadata={"a": "\0\ud7ff"}, top_logprobs=1)
    whole = read_events(answered.content)[-1]["response"] if stream else answered.json()
    found = await fetch(http, whole["id"])
    assert found == whole
    checked(found)


async def test_a_stream_that_failed_is_fetched_as_it_ended(connect: Connect) -> None:
    def script(_: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Delta(id=1, index=0, text="Half an answ", tokens=3)
        yield Failed(id=1, error=WorkerDied("The model's worker has died.").info)

    http = connect(FakePool(script))
    talk = (await http.post("/v1/conversations", json={"items": []})).json()["id"]
    events = read_events((await raw(http, stream=True, conversation=talk)).content)
    assert types(events)[-1] == "failed"
    told = events[-1]["response"]
    found = await fetch(http, told["id"])
    assert found == told
    assert (found["status"], found["output"][0]["status"]) == ("failed", "incomplete")
    assert [item["role"] for item in await items(http, told["id"])] == ["user"]
    listed = await http.get(f"/v1/conversations/{talk}/items")
    assert listed.json()["data"] == []


async def test_a_response_goes_on_from_another_but_not_with_its_instructions_and_tools(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    tool = {"type": "function", "name": "f", "parameters": {}}
    first = await respond(http, input="one", instructions="Be brief.", tools=[tool])
    second = await respond(http, input="two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert prompt(pool) == [("user", "one"), ("assistant", "Hello!"), ("user", "two")]
    assert pool.client.requests[-1].prompt.tools == []  # type: ignore[union-attr]
    await respond(http, input="three", previous_response_id=second.id, instructions="Shout.")
    assert [role for role, _ in prompt(pool)] == [
        "system",
        *("user", "assistant", "user", "assistant", "user"),
    ]
    # Branches do not see each other.
    await respond(http, input="other", previous_response_id=first.id)
    assert prompt(pool)[-1] == ("user", "other")
    assert len(prompt(pool)) == 3


async def test_images_are_stored_and_come_back_with_their_response(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    pool.see()
    data = b"\x89PNG\r\n\x1a\n"
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    parts: list[dict[str, Any]] = [
        {"type": "input_image", "image_url": uri, "detail": "low"},
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "image", "source": {"type": "base64", "data": uri.partition(",")[2]}},
    ]
    call_ = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": parts[1:]}
    first = await respond(http, input=[{"role": "user", "content": parts}, call_, result])
    [asked, _, seen] = await items(http, first.id)
    details = ["low", "auto", "auto"]
    listed = [{"type": "input_image", "detail": each, "image_url": uri} for each in details]
    assert asked["content"] == listed
    assert seen["output"] == listed[1:]
    sent = pool.client.requests[-1].prompt
    await respond(http, input="two", previous_response_id=first.id)
    again = pool.client.requests[-1].prompt
    assert isinstance(sent, ChatPrompt)
    assert isinstance(again, ChatPrompt)
    assert again.messages[: len(sent.messages)] == sent.messages


async def test_a_call_is_answered_by_its_result_alone(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        if len(pool.client.requests) > 1:
            return hello(request)
        return answer(request, call("f", {"a": 1}), tools_active=True)

    pool = FakePool(script, builtin_format("hermes"))
    http = connect(pool)
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    first = await respond(http, tools=[tool])
    [made] = first.output
    assert made.type == "function_call"
    result = {"type": "function_call_output", "call_id": made.call_id, "output": "42"}
    second = await respond(http, input=[result], previous_response_id=first.id, tools=[tool])
    assert [role for role, _ in prompt(pool)] == ["user", "assistant", "tool"]
    listed = await items(http, second.id)
    assert [item["type"] for item in listed] == [
        "message",
        "function_call",
        "function_call_output",
    ]
    assert listed[1]["id"] == made.id


async def test_results_of_clients_own_tools_are_stored_as_they_came(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    ran = {"stdout": "a.py", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
    given: list[dict[str, Any]] = [
        {"role": "user", "content": "List them."},
        {"type": "shell_call", "id": "sh_1", "call_id": "c1", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "id": "sho_1", "call_id": "c1", "output": [ran]},
    ]
    first = await respond(http, input=given)
    second = await respond(http, input="And?", previous_response_id=first.id)
    told = [content for role, content in prompt(pool) if role == "tool"]
    assert json.loads(told[0]) == [ran]
    call_, result = (await items(http, second.id))[1:3]
    assert (call_["type"], call_["action"]) == ("shell_call", {"commands": ["ls"]})
    assert (result["type"], result["output"]) == ("shell_call_output", [ran])


async def test_input_items_have_ids_that_stay(http: httpx.AsyncClient) -> None:
    given: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "id": "msg_mine"},
        {"role": "developer", "content": [{"type": "input_text", "text": "c"}]},
        {"type": "reasoning", "id": "rs_1", "summary": None, "encrypted_content": "foreign"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "x", "id": "no id" * 100},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "raw"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "y"},
    ]
    made = await respond(http, input=given)
    listed = await items(http, made.id, limit=3)
    assert [item["type"] for item in listed] == [
        "message",
        "message",
        "message",
        *(item["type"] for item in given[3:]),
    ]
    assert [listed[1]["id"], listed[3]["id"]] == ["msg_mine", "rs_1"]
    assert len({item["id"] for item in listed}) == len(given)
    assert await items(http, made.id, limit=100) == listed
    newest_first = (await fetch(http, f"{made.id}/input_items", limit=500))["data"]
    assert newest_first == listed[::-1]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_an_id_that_another_item_has_is_replaced(http: httpx.AsyncClient, order: str) -> None:
    given = [{"role": "user", "content": text, "id": name} for text, name in ("1a", "2b", "3a")]
    first = await respond(http, input=given)
    # As a client does that sends everything again, the answer too.
    again = [*given, first.output[0].model_dump()]
    second = await respond(http, input=again, previous_response_id=first.id)
    listed = await items(http, second.id, order=order, limit=1)
    texts = [item["content"][0]["text"] for item in listed]
    assert texts[:: 1 if order == "asc" else -1] == ["1", "2", "3", "Hello!"] * 2
    assert len({item["id"] for item in listed}) == 8
    assert {"a", "b", first.output[0].id} <= {item["id"] for item in listed}


@pytest.mark.parametrize("state", ["previous_response_id", "conversation"])
async def test_what_is_stored_can_be_answered_without_more_input(
    http: httpx.AsyncClient, pool: FakePool, state: str
) -> None:
    if state == "conversation":
        given = {"items": [{"role": "user", "content": "hi"}]}
        name = (await http.post("/v1/conversations", json=given)).json()["id"]
    else:
        name = (await respond(http)).id
    asked = {"model": "test", state: name}
    count = await http.post("/v1/responses/input_tokens", json=asked)
    assert count.status_code == 200, count.text
    answered = await http.post("/v1/responses", json=asked)
    made = checked(answered.json())
    assert prompt(pool)[0] == ("user", "hi")
    assert (await items(http, made.id))[0]["content"][0]["text"] == "hi"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "msg_none"}, "after"),
    ],
)
async def test_pages_that_do_not_exist_are_refused(
    http: httpx.AsyncClient, query: dict[str, str], param: str
) -> None:
    made = await respond(http)
    found = await http.get(f"/v1/responses/{made.id}/input_items", params=query)
    assert_error(found, 400, param=param)


async def test_references_stand_for_stored_items(http: httpx.AsyncClient, pool: FakePool) -> None:
    first = await respond(http, input="one")
    reference = {"type": "item_reference", "id": first.output[0].id}
    second = await respond(http, input=[{"role": "user", "content": "one"}, reference])
    assert prompt(pool) == [("user", "one"), ("assistant", "Hello!")]
    assert (await items(http, second.id))[1]["id"] == first.output[0].id
    answered = await raw(http, input=[reference], previous_response_id=first.id)
    assert answered.headers["x-dragoman-ignored"] == "input[0] (it is there already)"
    assert len(prompt(pool)) == 2


async def test_what_is_not_included_is_named(http: httpx.AsyncClient) -> None:
    made = await respond(http)
    query = {"include[]": ["reasoning.encrypted_content", "web_search_call.results"]}
    for path in ("", "/input_items"):
        found = await http.get(f"/v1/responses/{made.id}{path}", params=query)
        assert found.headers["x-dragoman-ignored"] == "include (web_search_call.results)"


async def test_only_events_of_the_background_are_resumed(http: httpx.AsyncClient) -> None:
    made = await respond(http)
    query = {"stream": "true", "starting_after": "0"}
    found = await http.get(f"/v1/responses/{made.id}", params=query)
    assert_error(found, 400, param="starting_after")


async def test_a_deleted_response_is_gone(http: httpx.AsyncClient, pool: FakePool) -> None:
    first = await respond(http)
    second = await respond(http, previous_response_id=first.id)
    gone = await http.delete(f"/v1/responses/{first.id}")
    assert gone.json() == {"id": first.id, "object": "response", "deleted": True}
    assert_error(
        await http.get(f"/v1/responses/{first.id}"), 404, code="not_found", param="response_id"
    )
    assert_error(
        await http.delete(f"/v1/responses/{first.id}"), 404, code="not_found", param="response_id"
    )
    # What goes on from it keeps what it was made from.
    await respond(http, previous_response_id=second.id)
    assert len(prompt(pool)) == 5


async def test_a_key_does_not_see_what_others_stored(connect: Connect) -> None:
    http = connect(api_keys=["me", "you"])
    mine = (await http.post("/v1/responses", json=response_body(), headers=ME)).json()
    name, message = mine["id"], mine["output"][0]["id"]
    assert (await http.get(f"/v1/responses/{name}", headers=ME)).status_code == 200
    for method, path in (
        ("GET", ""),
        ("GET", "?stream=true"),
        ("GET", "/input_items"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ):
        asked = await http.request(method, f"/v1/responses/{name}{path}", headers=YOU)
        assert_not_found(asked)
    for fields, status in (
        ({"previous_response_id": name}, 400),
        ({"input": [{"type": "item_reference", "id": message}]}, 404),
    ):
        for path in ("", "/input_tokens", "/compact"):
            asked = await http.post(
                f"/v1/responses{path}", json=response_body(**fields), headers=YOU
            )
            assert asked.status_code == status


@pytest.mark.parametrize("name", ["resp_none", "%00", "x" * 5000, "%F0%9F%A6%99"])
async def test_what_is_not_there_is_not_found(http: httpx.AsyncClient, name: str) -> None:
    for path in ("", "/input_items"):
        assert_error(
            await http.get(f"/v1/responses/{name}{path}"),
            404,
            code="not_found",
            param="response_id",
        )
    assert_error(
        await http.delete(f"/v1/responses/{name}"), 404, code="not_found", param="response_id"
    )
    answered = await http.post("/v1/responses", json=response_body(previous_response_id=name))
    assert_error(answered, 400, code="previous_response_not_found", param="previous_response_id")


async def test_store_false_writes_nothing(http: httpx.AsyncClient, own_store: Path) -> None:
    made = await respond(http, store=False)
    assert made.model_dump()["store"] is False
    assert not exists(own_store)
    assert_error(
        await http.get(f"/v1/responses/{made.id}"), 404, code="not_found", param="response_id"
    )


async def test_a_store_that_is_switched_off_keeps_nothing_and_says_so(
    connect: Connect, own_store: Path
) -> None:
    http = connect(store=False)
    answered = await raw(http, store=True)
    assert answered.headers["x-dragoman-ignored"] == "store"
    assert answered.json()["store"] is False
    assert "x-dragoman-ignored" not in (await raw(http)).headers
    assert_error(
        await http.get(f"/v1/responses/{answered.json()['id']}"),
        404,
        code="not_found",
        param="response_id",
    )
    for fields, code in (
        ({"previous_response_id": "resp_1"}, "previous_response_not_found"),
        ({"background": True}, "unsupported_parameter"),
        ({"conversation": "conv_1"}, "not_found"),
    ):
        refused = await http.post("/v1/responses", json=response_body(**fields))
        assert refused.json()["error"]["code"] == code
    assert not exists(own_store)


async def test_answers_are_served_while_the_store_fails(
    http: httpx.AsyncClient, own_store: Path
) -> None:
    block(own_store)
    answered = await raw(http)
    assert answered.headers["x-dragoman-ignored"] == "store"
    streamed = await raw(http, stream=True)
    assert streamed.headers["x-dragoman-ignored"] == "store"
    assert types(read_events(streamed.content))[-1] == "completed"
    found = await http.get(f"/v1/responses/{answered.json()['id']}")
    assert_error(found, 503, type_="server_error", code="store_unavailable")
    unblock(own_store)
    stored = await raw(http)
    assert await fetch(http, stored.json()["id"]) == stored.json()
    assert "x-dragoman-ignored" not in (await raw(http)).headers


async def test_a_tool_output_of_10_mb_is_stored(http: httpx.AsyncClient) -> None:
    given: list[dict[str, Any]] = [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x" * 10_000_000},
    ]
    made = await respond(http, input=given)
    listed = await items(http, made.id)
    assert len(listed[1]["output"]) == 10_000_000


async def test_a_chain_of_1000_items_is_listed_and_gone_on_from(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    given = [{"role": "user", "content": str(number)} for number in range(1000)]
    made = await respond(http, input=given)
    await respond(http, previous_response_id=made.id)
    assert len(prompt(pool)) == 1002
    listed = await items(http, made.id, limit=100)
    assert [item["content"][0]["text"] for item in listed] == [str(n) for n in range(1000)]


async def test_what_is_stored_is_converted_beside_the_event_loop(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small request may go on from a thousand items."""
    threads = []

    def recorded(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return parse(*arguments, **options)

    monkeypatch.setattr(create, "parse", recorded)
    made = await respond(http)
    await respond(http, previous_response_id=made.id)
    first, then = (thread is threading.current_thread() for thread in threads)
    assert (first, then) == (True, False)


async def test_a_stored_response_is_streamed_again(http: httpx.AsyncClient) -> None:
    made = (await raw(http, top_logprobs=1)).json()
    streamed = await http.get(f"/v1/responses/{made['id']}", params={"stream": "true"})
    events = read_events(streamed.content)
    assert events[-1]["response"] == made
    assert "".join(event.get("delta", "") for event in events) == "Hello!"
    refused = await http.get(
        f"/v1/responses/{made['id']}", params={"stream": "true", "starting_after": "1"}
    )
    assert_error(refused, 400, param="starting_after")


async def test_tokens_are_counted_with_what_is_stored(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    first = await respond(http)
    body = response_body(previous_response_id=first.id)
    assert (await http.post("/v1/responses/input_tokens", json=body)).status_code == 200
    rendered = pool.client.rendered[-1]
    assert isinstance(rendered, ChatPrompt)
    assert len(rendered.messages) == 3


# --- truncation ---


def crowded(most: int) -> FakePool:
    """A pool whose context holds ``most`` tokens, one for each character of a message."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        assert isinstance(request.prompt, ChatPrompt)
        tokens = sum(len(str(text(message))) for message in request.prompt.messages)
        if tokens <= most:
            return hello(request)
        error = ContextLengthExceeded(
            "Too long.", at=("prompt",), numbers={"tokens": tokens, "most": most}
        )
        return [Failed(id=1, error=error.info)]

    return FakePool(script)


async def test_truncation_leaves_out_the_oldest_turns_and_says_which(connect: Connect) -> None:
    pool = crowded(100)
    given = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"{n}" * 20} for n in range(9)
    ]
    answered = await raw(
        connect(pool), input=given, truncation="auto", instructions="Brief.", max_output_tokens=5
    )
    kept = prompt(pool)
    assert kept[0] == ("system", "Brief.")
    assert kept[-1] == ("user", "8" * 20)
    assert kept[1][0] == "user"
    dropped = len(given) + 1 - len(kept)
    assert dropped > 0
    named = ", ".join(f"input[{index}]" for index in range(dropped))
    assert answered.headers["x-dragoman-ignored"] == named
    assert answered.json()["truncation"] == "auto"


async def test_truncation_keeps_calls_with_their_results(connect: Connect) -> None:
    pool = crowded(120)
    given: list[dict[str, Any]] = [{"role": "user", "content": "work"}]
    for n in range(6):
        given.append({"type": "function_call", "call_id": f"c{n}", "name": "f", "arguments": "{}"})
        given.append({"type": "function_call_output", "call_id": f"c{n}", "output": f"{n}" * 30})
    await raw(connect(pool), input=given, truncation="auto")
    kept = prompt(pool)
    assert kept[0] == ("user", "work")
    assert [role for role, _ in kept[1:]] == ["assistant", "tool"] * (len(kept) // 2)
    assert kept[-1] == ("tool", "5" * 30)


async def test_truncation_names_stored_items_by_their_number(connect: Connect) -> None:
    pool = crowded(50)
    http = connect(pool)
    first = await respond(http, input="x" * 40)
    answered = await raw(http, input="y" * 20, truncation="auto", previous_response_id=first.id)
    assert prompt(pool) == [("user", "y" * 20)]
    assert (
        answered.headers["x-dragoman-ignored"] == "previous_response_id (2 of the oldest messages)"
    )


@pytest.mark.parametrize("certain", [False, True], ids=["counted", "refused uncounted"])
async def test_truncation_counts_what_would_be_left(connect: Connect, certain: bool) -> None:
    pool = crowded(CONTEXT - 1)
    pool.client.letters_are_tokens = True
    pool.client.most_letters = CONTEXT if certain else None
    http = connect(pool)
    given = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"{n}" * 300} for n in range(9)
    ]
    body = response_body(input=given, truncation="auto", max_output_tokens=5)
    counted = await http.post("/v1/responses/input_tokens", json=body)
    answered = await http.post("/v1/responses", json=body)
    left = letters(pool.client.requests[-1].prompt)
    assert left < CONTEXT
    assert counted.json()["input_tokens"] == left
    assert "input[0]" in counted.headers["x-dragoman-ignored"]
    assert counted.headers["x-dragoman-ignored"] == answered.headers["x-dragoman-ignored"]


@pytest.mark.parametrize("truncation", [None, "disabled", "auto"])
async def test_what_cannot_be_made_shorter_is_counted(
    connect: Connect, truncation: str | None
) -> None:
    pool = FakePool()
    pool.client.letters_are_tokens = True
    body = response_body(input="x" * (CONTEXT + 1), truncation=truncation)
    counted = await connect(pool).post("/v1/responses/input_tokens", json=body)
    assert counted.json()["input_tokens"] == CONTEXT + 1
    assert "x-dragoman-ignored" not in counted.headers


@pytest.mark.parametrize("truncation", [None, "disabled", "auto"])
async def test_what_cannot_be_made_shorter_is_refused(
    connect: Connect, truncation: str | None
) -> None:
    body = response_body(input="x" * 500, truncation=truncation)
    refused = await connect(crowded(50)).post("/v1/responses", json=body)
    assert_error(refused, 400, code="context_length_exceeded", param="input")

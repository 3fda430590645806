"""Conversations: made, changed, listed, and gone on from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai.types.conversations import Conversation, ConversationItem
from pydantic import TypeAdapter

from server.core.request import ChatPrompt
from tests.api.fakes import FakePool
from tests.api.responses.test_state import prompt
from tests.api.responses.wire import raw, respond, response_body
from tests.api.wire import assert_error

Connect = Callable[..., httpx.AsyncClient]

PATH = "/v1/conversations"
USER = {"role": "user", "content": "hi"}
_item: TypeAdapter[Any] = TypeAdapter(ConversationItem)


async def create(http: httpx.AsyncClient, **fields: Any) -> str:
    answered = await http.post(PATH, json=fields)
    assert answered.status_code == 200, answered.text
    return Conversation.model_validate(answered.json(), strict=True).id


async def listed(http: httpx.AsyncClient, name: str, **query: Any) -> list[dict[str, Any]]:
    answered = await http.get(f"{PATH}/{name}/items", params={"order": "asc", **query})
    assert answered.status_code == 200, answered.text
    found: list[dict[str, Any]] = answered.json()["data"]
    for item in found:
        _item.validate_python(item, strict=True)
    return found


def texts(items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(item["role"], item["content"][0]["text"]) for item in items]


async def test_a_conversation_is_made_changed_and_deleted(http: httpx.AsyncClient) -> None:
    name = await create(http, metadata={"a": "b"}, items=[USER])
    made = (await http.get(f"{PATH}/{name}")).json()
    assert (made["object"], made["metadata"]) == ("conversation", {"a": "b"})
    changed = await http.post(f"{PATH}/{name}", json={"metadata": {"c": "d"}})
    assert changed.json() == {**made, "metadata": {"c": "d"}}
    assert (await http.get(f"{PATH}/{name}")).json() == changed.json()
    gone = await http.delete(f"{PATH}/{name}")
    assert gone.json() == {"id": name, "object": "conversation.deleted", "deleted": True}
    assert_error(await http.get(f"{PATH}/{name}"), 404, code="not_found", param="conversation_id")


@pytest.mark.parametrize("item", [{"type": ""}, {"type": "", **USER}, {"type": 1}, 5])
async def test_an_item_without_a_type_is_refused_at_its_place(
    http: httpx.AsyncClient, item: object
) -> None:
    refused = await http.post(PATH, json={"items": [USER, item]})
    assert "an object with a type" in assert_error(refused, 400, param="items[1]")


async def test_items_are_appended_listed_fetched_and_deleted(http: httpx.AsyncClient) -> None:
    name = await create(http)
    assert await listed(http, name) == []
    added = await http.post(
        f"{PATH}/{name}/items",
        json={"items": [USER, {"role": "assistant", "content": "ho", "id": "msg_ho"}]},
    )
    assert added.json()["object"] == "list"
    assert await listed(http, name) == added.json()["data"]
    newest = (await http.get(f"{PATH}/{name}/items", params={"limit": 1})).json()
    assert [item["id"] for item in newest["data"]] == ["msg_ho"]
    assert (newest["first_id"], newest["last_id"], newest["has_more"]) == (
        "msg_ho",
        "msg_ho",
        True,
    )
    item = await http.get(f"{PATH}/{name}/items/msg_ho")
    assert item.json() == newest["data"][0]
    left = await http.delete(f"{PATH}/{name}/items/msg_ho")
    assert Conversation.model_validate(left.json(), strict=True).id == name
    assert texts(await listed(http, name)) == [("user", "hi")]
    missing = await http.get(f"{PATH}/{name}/items/msg_ho")
    assert_error(missing, 404, code="not_found", param="item_id")


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_items_are_listed_page_by_page(http: httpx.AsyncClient, order: str) -> None:
    name = await create(http, items=[{"role": "user", "content": str(n)} for n in range(5)])
    found: list[str] = []
    query: dict[str, Any] = {"order": order, "limit": 2}
    while True:
        page = (await http.get(f"{PATH}/{name}/items", params=query)).json()
        found += [text for _, text in texts(page["data"])]
        if not page["has_more"]:
            break
        query["after"] = page["last_id"]
    assert found == [str(n) for n in range(5)][:: 1 if order == "asc" else -1]
    for wrong, param in (({"after": "msg_none"}, "after"), ({"order": "up"}, "order")):
        refused = await http.get(f"{PATH}/{name}/items", params=wrong)
        assert_error(refused, 400, param=param)


async def test_what_is_not_included_is_named(http: httpx.AsyncClient) -> None:
    name = await create(http, items=[{**USER, "id": "msg_hi"}])
    known, unknown = "reasoning.encrypted_content", "file_search_call.results"
    query = {"include[]": [known, unknown]}
    for path in (f"{PATH}/{name}/items", f"{PATH}/{name}/items/msg_hi"):
        answered = await http.get(path, params=query)
        assert answered.headers["x-dragoman-ignored"] == f"include ({unknown})"
    added = await http.post(f"{PATH}/{name}/items", params=query, json={"items": [USER]})
    assert added.headers["x-dragoman-ignored"] == f"include ({unknown})"
    gone = await http.delete(f"{PATH}/{name}/items/msg_none")
    assert_error(gone, 404, code="not_found", param="item_id")


@pytest.mark.parametrize("as_object", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_goes_on_from_a_conversation_and_is_appended_to_it(
    http: httpx.AsyncClient, pool: FakePool, *, as_object: bool, stream: bool
) -> None:
    name = await create(http, items=[{"role": "user", "content": "zero"}])
    reference = {"id": name} if as_object else name
    for turn in ("one", "two"):
        answered = await raw(http, input=turn, conversation=reference, stream=stream)
        if not stream:
            assert answered.json()["conversation"] == {"id": name}
    assert prompt(pool) == [
        ("user", "zero"),
        ("user", "one"),
        ("assistant", "Hello!"),
        ("user", "two"),
    ]
    assert texts(await listed(http, name))[1:] == [
        ("user", "one"),
        ("assistant", "Hello!"),
        ("user", "two"),
        ("assistant", "Hello!"),
    ]


async def test_a_result_whose_call_was_deleted_is_left_out_and_named(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "1", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "1", "output": "4"}
    name = await create(http, items=[USER, call, result])
    deleted = await http.delete(f"{PATH}/{name}/items/fc_1")
    assert deleted.status_code == 200
    answered = await raw(http, input="And?", conversation=name)
    assert answered.status_code == 200
    named = "conversation (function_call_output without its call)"
    assert answered.headers["x-dragoman-ignored"] == named
    assert prompt(pool) == [("user", "hi"), ("user", "And?")]
    body = response_body(input=[result], conversation=name)
    own = await http.post("/v1/responses", json=body)
    assert_error(own, 400, param="input[0].call_id")


def called(id_: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{id_}",
        "call_id": id_,
        "name": "f",
        "arguments": "{}",
    }


RESULT = {"type": "function_call_output", "output": "4"}


@pytest.mark.parametrize("through", ["create", "append", "respond"])
async def test_a_result_without_an_id_answers_no_other_call_once_its_own_is_deleted(
    http: httpx.AsyncClient, pool: FakePool, through: str
) -> None:
    calls = [called("1"), called("2")]
    if through == "create":
        name = await create(http, items=[*calls, RESULT])
    else:
        name = await create(http, items=calls)
        if through == "append":
            await http.post(f"{PATH}/{name}/items", json={"items": [RESULT]})
        else:
            await respond(http, input=[RESULT], conversation=name)
    (stored,) = [item for item in await listed(http, name) if item["type"] == RESULT["type"]]
    assert stored["call_id"] == "1"
    await http.delete(f"{PATH}/{name}/items/fc_1")
    answered = await raw(http, input="And?", conversation=name)
    named = "conversation (function_call_output without its call)"
    assert answered.headers["x-dragoman-ignored"] == named
    assert "4" not in [said for _, said in prompt(pool)]


@pytest.mark.parametrize("through", ["create", "append", "respond"])
@pytest.mark.parametrize("deleted", ["fc_1", "fco_1"])
async def test_results_of_calls_that_share_an_id_keep_their_calls_once_others_are_deleted(
    http: httpx.AsyncClient, pool: FakePool, through: str, deleted: str
) -> None:
    calls = [{**called(n), "call_id": "0", "arguments": f'{{"n": {n}}}'} for n in "12"]
    results = [{**RESULT, "id": f"fco_{n}", "call_id": "0", "output": f"result {n}"} for n in "12"]
    items = [*calls, *results]
    name = await create(http, items=items if through == "create" else [])
    if through == "append":
        await http.post(f"{PATH}/{name}/items", json={"items": items})
    elif through == "respond":
        await respond(http, input=items, conversation=name)
    await http.delete(f"{PATH}/{name}/items/{deleted}")
    answered = await raw(http, input="And?", conversation=name)
    assert answered.status_code == 200
    asked = pool.client.requests[-1].prompt
    assert isinstance(asked, ChatPrompt)
    made = [call for message in asked.messages for call in message.tool_calls]
    (result,) = [message for message in asked.messages if message.role == "tool"]
    answers = next(call for call in made if call.id == result.tool_call_id)
    assert (answers.arguments, result.content) == ('{"n": 2}', "result 2")


async def test_an_id_that_the_conversation_has_is_replaced(http: httpx.AsyncClient) -> None:
    name = await create(http, items=[{**USER, "id": "mine"}, {**USER, "id": "mine"}])
    await http.post(f"{PATH}/{name}/items", json={"items": [{**USER, "id": "mine"}]})
    await respond(http, input=[{**USER, "id": "mine"}], conversation=name)
    ids = [item["id"] for item in await listed(http, name)]
    assert ids[0] == "mine"
    assert len(set(ids)) == len(ids) == 5


async def test_items_of_a_response_have_the_same_id_everywhere(http: httpx.AsyncClient) -> None:
    name = await create(http)
    made = await respond(http, conversation=name)
    asked, answered = await listed(http, name)
    assert answered["id"] == made.output[0].id
    inputs = (await http.get(f"/v1/responses/{made.id}/input_items")).json()["data"]
    assert [item["id"] for item in inputs] == [asked["id"]]


async def test_responses_of_one_time_are_appended_one_after_the_other(
    http: httpx.AsyncClient,
) -> None:
    name = await create(http)
    made = await asyncio.gather(*(respond(http, input=f"{n}", conversation=name) for n in range(9)))
    found = await listed(http, name)
    answers = {response.output[0].id for response in made}
    assert sorted(item["content"][0]["text"] for item in found[::2]) == [f"{n}" for n in range(9)]
    assert {item["id"] for item in found[1::2]} == answers


async def test_nothing_is_appended_where_store_is_false(http: httpx.AsyncClient) -> None:
    name = await create(http, items=[USER])
    answered = await raw(http, conversation=name, store=False)
    assert answered.headers["x-dragoman-ignored"] == "conversation (nothing is appended)"
    assert len(await listed(http, name)) == 1


async def test_a_response_in_the_background_is_appended_when_it_is_done(
    connect: Connect,
) -> None:
    from tests.api.responses.test_background import begin, slowly, until

    http = connect(slowly())
    name = await create(http, items=[USER])
    made = await begin(http, conversation=name)
    assert len(await listed(http, name)) == 1
    await until(http, made, "completed")
    assert [role for role, _ in texts(await listed(http, name))] == ["user", "user", "assistant"]


async def test_1000_items_are_appended_and_listed(http: httpx.AsyncClient, pool: FakePool) -> None:
    name = await create(http, items=[{"role": "user", "content": str(n)} for n in range(1000)])
    await respond(http, conversation=name)
    assert len(prompt(pool)) == 1001
    assert len(await listed(http, name, limit=100)) == 100


async def test_references_are_resolved_when_they_are_appended(http: httpx.AsyncClient) -> None:
    made = await respond(http)
    reference = {"type": "item_reference", "id": made.output[0].id}
    name = await create(http, items=[reference])
    assert texts(await listed(http, name)) == [("assistant", "Hello!")]
    missing = await http.post(PATH, json={"items": [{"type": "item_reference", "id": "x"}]})
    assert_error(missing, 404, code="not_found", param="items[0].id")


async def test_encrypted_content_that_is_not_ours_is_kept_and_has_no_effect(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "!no!"}
    compaction = {"type": "compaction", "encrypted_content": "dragoman-compaction-1:!!!"}
    name = await create(http, items=[reasoning, compaction])
    await respond(http, conversation=name)
    assert prompt(pool) == [("user", "hi")]
    assert (await listed(http, name))[0]["encrypted_content"] == "!no!"
    answered = await raw(http, input=[reasoning, compaction, USER])
    assert answered.headers["x-dragoman-ignored"] == (
        "input[0].encrypted_content, input[1].encrypted_content"
    )


async def test_a_key_does_not_see_the_conversations_of_others(connect: Connect) -> None:
    http = connect(api_keys=["me", "you"])
    mine = {"authorization": "Bearer me"}
    yours = {"authorization": "Bearer you"}
    made = (await http.post(PATH, json={"items": [USER]}, headers=mine)).json()
    [item] = (await http.get(f"{PATH}/{made['id']}/items", headers=mine)).json()["data"]
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", {"metadata": {}}),
        ("DELETE", "", None),
        ("GET", "/items", None),
        ("POST", "/items", {"items": [USER]}),
        ("GET", f"/items/{item['id']}", None),
        ("DELETE", f"/items/{item['id']}", None),
    ):
        asked = await http.request(method, f"{PATH}/{made['id']}{path}", json=body, headers=yours)
        assert_error(asked, 404, code="not_found", param="conversation_id")
    answered = await http.post(
        "/v1/responses", json=response_body(conversation=made["id"]), headers=yours
    )
    assert_error(answered, 404, code="not_found", param="conversation")
    own = (await http.post(PATH, json={}, headers=yours)).json()["id"]
    taken = {"items": [{"type": "item_reference", "id": item["id"]}]}
    for path in ("", f"/{own}/items"):
        assert (await http.post(f"{PATH}{path}", json=taken, headers=yours)).status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"items": 7}, "items"),
        ({"items": [{"role": "nobody", "content": ""}]}, "items[0].role"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
async def test_bad_bodies_are_refused_with_their_place(
    http: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    assert_error(await http.post(PATH, json=body), 400, param=param)


async def test_both_kinds_of_state_exclude_each_other(http: httpx.AsyncClient) -> None:
    name = await create(http)
    made = await respond(http)
    body = response_body(conversation=name, previous_response_id=made.id)
    refused = await http.post("/v1/responses", json=body)
    assert_error(refused, 400, param="previous_response_id")


async def test_there_are_no_conversations_while_the_store_is_off(connect: Connect) -> None:
    http = connect(store=False)
    assert_error(await http.post(PATH, json={}), 400, code="unsupported_parameter")
    missing = await http.get(f"{PATH}/conv_1")
    assert_error(missing, 404, code="not_found", param="conversation_id")


async def test_an_image_that_is_none_is_not_appended(http: httpx.AsyncClient) -> None:
    name = await create(http)
    content = [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "x:"}]
    items = [USER, {"role": "user", "content": content}]
    answered = await http.post(f"{PATH}/{name}/items", json={"items": items})
    place = "items[1].content[1].image_url"
    assert_error(answered, 400, code="unsupported_parameter", param=place)
    assert await listed(http, name) == []

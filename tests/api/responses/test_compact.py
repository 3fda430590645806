"""A conversation is made shorter, and what comes of it stands for the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from openai.types.responses import CompactedResponse, ResponseCompactionItem

from server.core.request import GenerationRequest
from tests.api.fakes import FakePool, answer
from tests.api.responses.test_state import crowded, prompt
from tests.api.responses.wire import raw, respond
from tests.api.wire import assert_error

Connect = Callable[..., httpx.AsyncClient]

COMPACT = "/v1/responses/compact"
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Find the bug."},
    {"type": "function_call", "call_id": "c", "name": "grep", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "a.py:1"},
    {"role": "assistant", "content": "It is in a.py."},
]


async def compact(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answered = await http.post(COMPACT, json={"model": "test", **fields})
    assert answered.status_code == 200, answered.text
    body: dict[str, Any] = answered.json()
    # The SDK's strict type has no place for the users' messages, which its comment promises.
    last = {**body, "output": body["output"][-1:]}
    CompactedResponse.model_validate(last, strict=True)
    ResponseCompactionItem.model_validate(body["output"][-1], strict=True)
    return body


async def test_the_answer_has_the_users_messages_and_an_item_for_the_rest(
    connect: Connect,
) -> None:
    def script(request: GenerationRequest) -> Any:
        return answer(request, "The bug is in a.py.")

    pool = FakePool(script)
    http = connect(pool)
    made = await compact(http, input=TALK, instructions="You fix bugs.")
    assert [item["type"] for item in made["output"]] == ["message", "compaction"]
    assert made["output"][0]["content"] == [{"type": "input_text", "text": "Find the bug."}]
    assert made["usage"]["input_tokens"] == 5
    roles = [role for role, _ in prompt(pool)]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    # It comes back usable, as input or in a conversation.
    await raw(http, input=[*made["output"], {"role": "user", "content": "Fix it."}])
    asked, summary, then = prompt(pool)
    assert (asked, then) == (("user", "Find the bug."), ("user", "Fix it."))
    assert summary[1].endswith("The bug is in a.py.")


async def test_a_stored_response_is_compacted(http: httpx.AsyncClient, pool: FakePool) -> None:
    first = await respond(http, input="one")
    made = await compact(http, previous_response_id=first.id)
    assert [item["type"] for item in made["output"]] == ["message", "compaction"]
    assert len(prompt(pool)) == 3


async def test_a_conversation_that_is_too_long_is_compacted_without_its_beginning(
    connect: Connect,
) -> None:
    http = connect(crowded(700))
    given = [{"role": "user", "content": f"{n}" * 200} for n in range(5)]
    made = await compact(http, input=given)
    assert len(made["output"]) == 6


async def test_nothing_cannot_be_compacted(http: httpx.AsyncClient) -> None:
    refused = await http.post(COMPACT, json={"model": "test", "input": []})
    assert_error(refused, 400, param="input")
    refused = await http.post(COMPACT, json={"model": "test", "previous_response_id": "resp_x"})
    assert_error(refused, 400, code="previous_response_not_found", param="previous_response_id")

"""OpenAI's package on stored responses and conversations; openai-agents keeps a session there."""

from __future__ import annotations

import time

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response

from tests.conformance.conftest import RunClient
from tests.e2e.server import INSTRUCT, Server

QUESTION = "Name a colour."
SHORT = {"max_output_tokens": 16, "temperature": 0}


def ask(client: OpenAI, **fields: object) -> Response:
    made = client.responses.create(model=INSTRUCT, **{"input": QUESTION, **SHORT, **fields})  # type: ignore[call-overload]
    assert isinstance(made, Response)
    return made


def wait(client: OpenAI, made: Response) -> Response:
    deadline = time.monotonic() + 60
    while made.status in {"queued", "in_progress"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        made = client.responses.retrieve(made.id)
    return made


def test_a_response_is_retrieved_gone_on_from_and_deleted(client: OpenAI) -> None:
    first = ask(client)
    assert client.responses.retrieve(first.id) == first
    second = ask(client, input="And another?", previous_response_id=first.id)
    listed = list(client.responses.input_items.list(second.id, order="asc", limit=2))
    assert [item.type for item in listed] == ["message"] * 3
    assert listed[1].id == first.output[0].id
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_the_prompt_is_the_same_as_with_all_items_sent(client: OpenAI) -> None:
    first = ask(client)
    stored = ask(client, input="Why?", previous_response_id=first.id)
    items = [{"role": "user", "content": QUESTION}, *(item.to_dict() for item in first.output)]
    sent = ask(client, input=[*items, {"role": "user", "content": "Why?"}])
    assert stored.usage is not None
    assert sent.usage is not None
    assert stored.usage.input_tokens == sent.usage.input_tokens


def test_a_response_in_the_background_is_polled_and_streamed_again(client: OpenAI) -> None:
    queued = ask(client, background=True)
    assert queued.status == "queued"
    done = wait(client, queued)
    assert done.status in {"completed", "incomplete"}
    assert done.output_text
    events = list(client.responses.retrieve(done.id, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    rest = list(client.responses.retrieve(done.id, stream=True, starting_after=3))
    assert rest == events[4:]
    last = events[-1]
    assert last.type in {"response.completed", "response.incomplete"}
    assert last.response == done


def test_a_response_in_the_background_is_cancelled(client: OpenAI) -> None:
    made = client.responses.create(
        model=INSTRUCT, input="Count to a million.", background=True, max_output_tokens=1500
    )
    cancelled = client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"


def test_a_compaction_comes_back_as_input(client: OpenAI) -> None:
    first = ask(client)
    raw = client.responses.with_raw_response
    answered = raw.compact(model=INSTRUCT, previous_response_id=first.id)
    compacted = answered.parse()
    assert compacted.object == "response.compaction"
    assert compacted.output[-1].type == "compaction"
    # As JSON: the SDK's types have no place for the users' messages, which come first.
    items = answered.http_response.json()["output"]
    assert [item["type"] for item in items] == ["message", "compaction"]
    assert ask(client, input=[*items, {"role": "user", "content": "Go on."}]).output_text


def test_a_conversation_and_its_items(client: OpenAI) -> None:
    made = client.conversations.create(metadata={"topic": "colours"})
    ask(client, conversation=made.id)
    items = client.conversations.items
    added = items.create(made.id, items=[{"type": "message", "role": "user", "content": "Thanks."}])
    listed = list(items.list(made.id, order="asc", limit=1))
    assert [item.type for item in listed] == ["message"] * 3
    assert listed[-1] == added.data[0]
    assert items.retrieve(listed[1].id or "", conversation_id=made.id) == listed[1]
    items.delete(listed[1].id or "", conversation_id=made.id)
    assert len(items.list(made.id).data) == 2
    changed = client.conversations.update(made.id, metadata={"topic": "none"})
    assert client.conversations.retrieve(made.id) == changed
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(made.id)


def test_errors_have_the_class_that_the_sdk_gives_them(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_none")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, previous_response_id="resp_none")
    assert refused.value.code == "previous_response_not_found"
    with pytest.raises(openai.NotFoundError):
        ask(client, conversation="conv_none")


def test_an_agent_keeps_its_session_in_a_conversation(
    server: Server, run_client: RunClient
) -> None:
    done = run_client("session.py", server.url, INSTRUCT)
    assert done["roles"] == ["user", "assistant", "user", "assistant"]
    assert done["popped"] == "assistant"
    assert done["left"] == 3
    assert done["cleared"] == 0
    assert done["chained"] == 3

"""Answers of chat completions, whole and streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import httpx

from server.core.events import Accepted, Delta, Event, Finished
from server.core.request import GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, answer, usage
from tests.api.wire import (
    CHAT,
    TOOL,
    chat,
    chat_body,
    chat_chunks,
    raw_chunks,
)

Connect = Callable[..., httpx.AsyncClient]

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def hermes_pool(*texts: str, prefix: str = "") -> FakePool:
    """A model that writes Hermes tool calls and thinks, and answers ``texts``."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, *texts, prefix=prefix, tools_active=True)

    return FakePool(script, builtin_format("hermes"))


async def test_a_message_always_has_role_content_and_refusal(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=chat_body())
    (choice,) = response.json()["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello!", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }


async def test_an_answer_validates_against_the_sdk_strictly(http: httpx.AsyncClient) -> None:
    answered = await chat(http, n=2)
    assert [choice.message.content for choice in answered.choices] == ["Hello!", "Hello!"]
    assert answered.model == "test"
    assert answered.system_fingerprint == "fp_test"
    assert answered.id.startswith("chatcmpl-")


async def test_streamed_pieces_add_up_to_the_whole_answer(http: httpx.AsyncClient) -> None:
    chunks = await chat_chunks(http)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == (await chat(http)).choices[0].message.content


async def test_the_first_delta_names_the_role_and_the_last_is_empty_with_the_reason(
    http: httpx.AsyncClient,
) -> None:
    chunks = await raw_chunks(http, CHAT, chat_body(n=2))
    for index in range(2):
        choices = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert choices[-1]["delta"] == {}
        assert choices[-1]["finish_reason"] == "stop"
        assert all(choice["finish_reason"] is None for choice in choices[:-1])
        assert all(choice["logprobs"] is None for choice in choices)


async def test_all_chunks_have_the_same_id_and_time(http: httpx.AsyncClient) -> None:
    chunks = await chat_chunks(http)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


async def test_without_include_usage_no_chunk_has_the_key(http: httpx.AsyncClient) -> None:
    for fields in ({}, {"stream_options": {"include_usage": False}}):
        chunks = await raw_chunks(http, CHAT, chat_body(**fields))
        assert not any("usage" in chunk for chunk in chunks)


async def test_include_usage_gives_one_last_chunk_without_choices(http: httpx.AsyncClient) -> None:
    body = chat_body(n=2, stream_options={"include_usage": True})
    *chunks, last = await raw_chunks(http, CHAT, body)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_usage_counts_the_prompt_of_several_answers_once(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(
            request,
            "a",
            cached_tokens=4,
            accepted_prediction_tokens=2,
            rejected_prediction_tokens=1,
        )

    total = (await chat(connect(FakePool(script)), n=3)).usage
    assert total is not None
    assert (total.prompt_tokens, total.completion_tokens, total.total_tokens) == (5, 3, 8)
    assert total.prompt_tokens_details is not None
    assert total.prompt_tokens_details.cached_tokens == 4
    details = total.completion_tokens_details
    assert details is not None
    assert details.accepted_prediction_tokens == 6
    assert details.rejected_prediction_tokens == 3


async def test_what_further_answers_share_with_the_first_is_not_called_cached(
    connect: Connect,
) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        for index, cached in ((1, 4), (0, 0)):
            yield Finished(id=1, index=index, reason="stop", usage=usage(1, cached_tokens=cached))

    total = (await chat(connect(FakePool(script)), n=2)).usage
    assert total is not None
    assert total.prompt_tokens_details is not None
    assert total.prompt_tokens_details.cached_tokens == 0


async def test_content_is_null_beside_tool_calls(connect: Connect) -> None:
    response = await connect(hermes_pool(CALL)).post(CHAT, json=chat_body(tools=[TOOL]))
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call.pop("id")
    assert call == {
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
    }


async def test_tool_calls_are_absent_when_there_are_none(connect: Connect) -> None:
    response = await connect(hermes_pool("No need.")).post(CHAT, json=chat_body(tools=[TOOL]))
    assert "tool_calls" not in response.json()["choices"][0]["message"]


async def test_tool_deltas_count_their_index_and_name_the_function_first(connect: Connect) -> None:
    http = connect(hermes_pool(*CALL, "\n", *CALL))
    chunks = await raw_chunks(http, CHAT, chat_body(tools=[TOOL]))
    deltas = [
        call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    assert {delta["index"] for delta in deltas} == {0, 1}
    for index in range(2):
        first, *later = [delta for delta in deltas if delta["index"] == index]
        assert first.pop("id")
        assert first == {
            "index": index,
            "type": "function",
            "function": {"name": "weather", "arguments": ""},
        }
        assert all(delta.keys() == {"index", "function"} for delta in later)
        assert all(delta["function"].keys() == {"arguments"} for delta in later)
        text = "".join(delta["function"]["arguments"] for delta in later)
        assert text == '{"city": "Paris"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_an_answer_cut_off_says_length_even_with_tool_calls(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, CALL, reason="length", tools_active=True)

    http = connect(FakePool(script, builtin_format("hermes")))
    assert (await chat(http, tools=[TOOL])).choices[0].finish_reason == "length"


async def test_reasoning_is_apart_from_content_and_counted(connect: Connect) -> None:
    pool = hermes_pool("<think>", "Let", " me", "</think>", "\n\n", "4", "2")
    response = await connect(pool).post(CHAT, json=chat_body())
    message = response.json()["choices"][0]["message"]
    assert message["reasoning_content"] == "Let me"
    assert message["content"] == "42"
    details = response.json()["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == 5, "its markers and the space after it count"


async def test_the_limit_and_the_count_of_tokens_include_reasoning(connect: Connect) -> None:
    pool = hermes_pool("<think>", "Let", " me", "</think>", "4", "2")
    response = await connect(pool).post(CHAT, json=chat_body(max_completion_tokens=6))
    usage = response.json()["usage"]
    assert usage["completion_tokens"] == 6
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 4
    assert pool.client.requests[0].max_tokens == 6


async def test_reasoning_that_the_prompt_opened_is_reasoning(connect: Connect) -> None:
    pool = hermes_pool("Let", " me", "</think>", "42", prefix="<think>\n")
    response = await connect(pool).post(CHAT, json=chat_body())
    message = response.json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Let me", "42")


async def test_an_alias_is_answered_under_the_model_s_own_name(http: httpx.AsyncClient) -> None:
    assert (await chat(http, model="alias")).model == "test"


async def test_text_is_passed_on_as_the_engine_gives_it(connect: Connect) -> None:
    """The engine holds parts of characters back: an event may have tokens and no text."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Delta(id=1, index=0, text="", tokens=2)
        yield Delta(id=1, index=0, text="🦜", tokens=1)
        yield Finished(id=1, index=0, reason="stop", usage=usage(3))

    chunks = await raw_chunks(connect(FakePool(script)), CHAT, chat_body())
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "🦜", None]

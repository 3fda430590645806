"""Chat completions on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest

from server.core.errors import (
    ConversationError,
    ErrorInfo,
    InvalidRequest,
    Locator,
    QueueFull,
    WorkerDied,
)
from server.core.events import Accepted, Delta, Event, Failed, Finished
from server.core.request import (
    ChatPrompt,
    Constraint,
    GenerationRequest,
    Message,
    TextPart,
    ToolChoice,
)
from server.core.sampling import INT32_MAX
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, Script, answer, usage
from tests.api.wire import (
    CHAT,
    assert_error,
    chat,
    chat_body,
    chat_chunks,
    events,
    raw_chunks,
)

Connect = Callable[..., httpx.AsyncClient]

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
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


async def test_both_names_of_the_limit_are_honoured(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    for fields in (
        {"max_tokens": 7},
        {"max_completion_tokens": 7},
        {"max_tokens": 7, "max_completion_tokens": 7},
        {"max_tokens": 2**31},
        {"max_tokens": 10**30},
        {},
    ):
        await chat(http, **fields)
    limits = [request.max_tokens for request in pool.client.requests]
    assert limits == [7, 7, 7, INT32_MAX, INT32_MAX, None]


async def test_what_is_silent_or_null_stays_open_for_the_model_s_defaults(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    await chat(http, temperature=None, top_p=None, n=None, stop=None, seed=None, tools=None)
    (request,) = pool.client.requests
    assert request.sampling.temperature is None
    assert request.sampling.top_p is None
    assert (request.n, request.stop, request.logprobs) == (1, [], None)


async def test_sampling_parameters_of_the_field_are_taken_at_top_level(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    fields = {
        "top_k": 40,
        "min_p": 0.05,
        "typical_p": 0.9,
        "repeat_penalty": 1.1,
        "repeat_last_n": -1,
        "dry_multiplier": 0.8,
        "dry_base": 1.75,
        "dry_allowed_length": 2,
        "dry_penalty_last_n": -1,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.1,
        "mirostat": 2,
        "mirostat_tau": 5,
        "mirostat_eta": 0.1,
    }
    await chat(http, **fields, logit_bias={"7": -100}, ignore_eos=True, seed=-(2**63))
    (request,) = pool.client.requests
    assert {name: getattr(request.sampling, name) for name in fields} == fields
    assert request.sampling.logit_bias == {7: -100}
    assert request.sampling.seed == -(2**63)
    assert request.ignore_eos


async def test_messages_reach_the_model_as_they_are(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    await chat(
        http,
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}], "name": "ann"},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "audio": None,
                "annotations": [],
                "tool_calls": [call],
                "reasoning_content": "hm",
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "assistant", "refusal": "I will not."},
            {"role": "user", "content": ""},
        ],
    )
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    roles = [message.role for message in prompt.messages]
    assert roles == ["developer", "user", "assistant", "tool", "assistant", "user"]
    assert prompt.messages[1] == Message(role="user", content=[TextPart("a")], name="ann")
    assert prompt.messages[2].content is None
    assert prompt.messages[2].reasoning_content == "hm"
    assert prompt.messages[2].tool_calls[0].arguments == "{}"
    assert prompt.messages[3].tool_call_id == "c1"
    assert prompt.messages[4].content == "I will not."
    assert prompt.messages[5].content == ""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "I will not."),
        ("", "I will not."),
        ("Hm.", [TextPart("Hm."), TextPart("I will not.")]),
        ([{"type": "text", "text": "Hm."}], [TextPart("Hm."), TextPart("I will not.")]),
    ],
)
async def test_a_refusal_beside_content_is_not_dropped(
    http: httpx.AsyncClient, pool: FakePool, content: Any, expected: Any
) -> None:
    refused = {"role": "assistant", "content": content, "refusal": "I will not."}
    await chat(http, messages=[refused, {"role": "user", "content": "Why?"}])
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("none", ToolChoice(mode="none")),
        ("required", ToolChoice(mode="required")),
        (
            {"type": "function", "function": {"name": "weather"}},
            ToolChoice(mode="named", name="weather"),
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
            ToolChoice(mode="required"),
        ),
    ],
)
async def test_tool_choice(
    http: httpx.AsyncClient, pool: FakePool, choice: object, expected: ToolChoice
) -> None:
    await chat(http, tools=[TOOL], tool_choice=choice)
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.tool_choice == expected
    assert [tool.name for tool in prompt.tools] == ["weather"]


async def test_parallel_tool_calls_may_be_forbidden(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    await chat(http, tools=[TOOL], parallel_tool_calls=False)
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert not prompt.tool_choice.parallel


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint(kind="json_object")),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}},
                }
            },
            Constraint(kind="json_schema", body='{"type":"object"}'),
        ),
        ({"regex": "a+"}, Constraint(kind="regex", body="a+")),
        ({"choice": ["a", "b"]}, Constraint(kind="choice", body='["a","b"]')),
        ({"lark": "start: /a/"}, Constraint(kind="lark", body="start: /a/")),
        ({"grammar": 'root ::= "a"'}, Constraint(kind="gbnf", body='root ::= "a"')),
    ],
)
async def test_constraints(
    http: httpx.AsyncClient,
    pool: FakePool,
    fields: dict[str, object],
    expected: Constraint | None,
) -> None:
    await chat(http, **fields)
    assert pool.client.requests[0].constraint == expected


async def test_template_variables_come_from_three_places(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    await chat(
        http,
        enable_thinking=False,
        reasoning_effort="low",
        chat_template_kwargs={"date": "today", "enable_thinking": False},
    )
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.template_kwargs == {
        "enable_thinking": False,
        "reasoning_effort": "low",
        "date": "today",
    }


async def test_a_final_message_can_be_continued(http: httpx.AsyncClient, pool: FakePool) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    await chat(http, messages=messages, continue_final_message=True)
    prompt = pool.client.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert (prompt.continue_final_message, prompt.add_generation_prompt) == (True, False)


@pytest.mark.parametrize("content", ["a b", [{"type": "text", "text": t} for t in ("a ", "b")]])
async def test_a_prediction_reaches_the_model(
    http: httpx.AsyncClient, pool: FakePool, content: object
) -> None:
    await chat(http, prediction={"type": "content", "content": content})
    assert pool.client.requests[0].prediction == "a b"


async def test_an_alias_is_answered_under_the_model_s_own_name(http: httpx.AsyncClient) -> None:
    assert (await chat(http, model="alias")).model == "test"


def failing(error: ErrorInfo, *, after: int) -> Script:
    def script(request: GenerationRequest) -> Iterable[Event]:
        if after:
            yield Accepted(id=1, prompt_tokens=5)
            yield Delta(id=1, index=0, text="Hel", tokens=1)
        yield Failed(id=1, error=error)

    return script


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_error_of_a_stream_is_a_real_http_error(
    connect: Connect, stream: bool
) -> None:
    error = QueueFull("The queue is full.", retry_after=2.4).info
    response = await connect(FakePool(failing(error, after=0))).post(
        CHAT, json=chat_body(stream=stream)
    )
    assert_error(response, 429, type_="rate_limit_error", code="queue_full")
    assert response.headers["retry-after"] == "3"


async def test_a_wait_of_less_than_a_second_is_told_as_one_second(connect: Connect) -> None:
    error = QueueFull("The queue is full.", retry_after=0.2).info
    response = await connect(FakePool(failing(error, after=0))).post(CHAT, json=chat_body())
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("at", "param"),
    [
        (
            ("messages", 2, "tool_calls", 0, "arguments"),
            "messages[2].tool_calls[0].function.arguments",
        ),
        (("template_kwargs", "mood"), "chat_template_kwargs.mood"),
        (("sampling", "top_k"), "top_k"),
        (("prompt",), "messages"),
    ],
)
async def test_a_canonical_place_becomes_the_field_of_the_body(
    connect: Connect, at: Locator, param: str
) -> None:
    error = InvalidRequest("No.", at=at).info
    response = await connect(FakePool(failing(error, after=0))).post(CHAT, json=chat_body())
    assert_error(response, 400, param=param)


async def test_a_template_that_raises_is_400(connect: Connect) -> None:
    error = ConversationError("Roles must alternate.", at=("messages", 1)).info
    response = await connect(FakePool(failing(error, after=0))).post(CHAT, json=chat_body())
    assert_error(response, 400, code="invalid_conversation", param="messages[1]")


@pytest.mark.parametrize("raised", [False, True])
async def test_a_later_error_is_an_event_and_no_done_follows(
    connect: Connect, raised: bool
) -> None:
    def dying(request: GenerationRequest) -> Iterable[Event | Exception]:
        yield Accepted(id=1, prompt_tokens=5)
        yield WorkerDied("The model's process was killed.")

    failed = failing(WorkerDied("The model's process was killed.").info, after=1)
    http = connect(FakePool(dying if raised else failed))
    response = await http.post(CHAT, json=chat_body(stream=True))
    assert response.status_code == 200
    last = events(response.text)[-1]
    assert "[DONE]" not in response.text
    assert last == (
        '{"error":{"message":"The model\'s process was killed.","type":"server_error",'
        '"param":null,"code":"worker_died"}}'
    )


async def test_a_failure_of_a_whole_answer_is_an_http_error_however_late(connect: Connect) -> None:
    error = WorkerDied("The model's process was killed.").info
    response = await connect(FakePool(failing(error, after=1))).post(CHAT, json=chat_body())
    assert_error(response, 500, type_="server_error", code="worker_died")


async def test_text_is_passed_on_as_the_engine_gives_it(connect: Connect) -> None:
    """The engine holds parts of characters back: an event may have tokens and no text."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Delta(id=1, index=0, text="", tokens=2)
        yield Delta(id=1, index=0, text="🦜", tokens=1)
        yield Finished(id=1, index=0, reason="stop", usage=usage(3))

    chunks = await raw_chunks(connect(FakePool(script)), CHAT, chat_body())
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "🦜", None]

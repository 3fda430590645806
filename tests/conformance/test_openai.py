"""OpenAI's Python package: every answer is valid in strict mode, and its helpers work."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Completion
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
)
from openai.types.chat.chat_completion import Choice
from pydantic import BaseModel, Field

from tests.api.wire import check_completion, events
from tests.e2e.server import BASE, INSTRUCT, Server

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name a colour."}]
MODELS = [INSTRUCT, BASE]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "paint", "parameters": SCHEMA}}
FORCED = {"type": "function", "function": {"name": "paint"}}

CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "usage": {"stream_options": {"include_usage": True}},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "logprobs without alternatives": {"logprobs": True},
    "several answers": {"n": 3, "temperature": 1.5},
    "a stop string": {"stop": ["e"]},
    "JSON": {"response_format": {"type": "json_object"}},
    "a schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    },
    "a forced call": {"tools": [TOOL], "tool_choice": FORCED, "max_tokens": 60},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]},
}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "several prompts": {"prompt": ["One", "Two"], "n": 2},
    "tokens": {"prompt": [[5, 6, 7], [8]]},
    "logprobs": {"logprobs": 2},
    "scoring": {"echo": True, "logprobs": 1, "max_tokens": 0},
    "echo and more": {"echo": True, "logprobs": 0},
    "the best of several": {"best_of": 2, "temperature": 1.5},
}


@pytest.fixture
def post(server: Server) -> Callable[[str, dict[str, Any]], httpx.Response]:
    def post(path: str, body: dict[str, Any]) -> httpx.Response:
        answer = httpx.post(f"{server.url}/v1{path}", json=body, timeout=100)
        assert answer.status_code == 200, answer.text
        return answer

    return post


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fields", CHATS.values(), ids=CHATS)
def test_chats_are_valid(
    post: Callable[..., httpx.Response], model: str, fields: dict[str, Any]
) -> None:
    body: dict[str, Any] = {"model": model, "messages": MESSAGES, "max_tokens": 8} | fields
    whole = ChatCompletion.model_validate(
        post("/chat/completions", {k: v for k, v in body.items() if k != "stream_options"}).json(),
        strict=True,
    )
    assert [choice.index for choice in whole.choices] == list(range(body.get("n", 1)))
    for choice in whole.choices:
        assert (choice.finish_reason == "tool_calls") == bool(choice.message.tool_calls)
        assert (choice.message.content is None) == bool(choice.message.tool_calls)
    *data, done = events(post("/chat/completions", body | {"stream": True}).text)
    assert done == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate(json.loads(d), strict=True) for d in data]
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    for index in range(body.get("n", 1)):
        of_choice = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert of_choice[0].delta.role == "assistant"
        assert [c.finish_reason for c in of_choice[:-1]] == [None] * (len(of_choice) - 1)
        assert of_choice[-1].finish_reason in {"stop", "length", "tool_calls"}
    with_usage = [chunk for chunk in chunks if chunk.usage is not None]
    assert with_usage == (chunks[-1:] if "stream_options" in body else [])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fields", COMPLETIONS.values(), ids=COMPLETIONS)
def test_completions_are_valid(
    post: Callable[..., httpx.Response], model: str, fields: dict[str, Any]
) -> None:
    body = {"model": model, "prompt": "The cat", "max_tokens": 4} | fields
    check_completion(post("/completions", body).json())
    if "best_of" not in fields:
        *data, done = events(post("/completions", body | {"stream": True}).text)
        assert done == "[DONE]"
        for chunk in data:
            check_completion(json.loads(chunk))


class Colour(BaseModel):
    name: str = Field(max_length=20)
    red: int = Field(ge=0, le=255)


def test_parse_gives_an_object(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=INSTRUCT, messages=MESSAGES, response_format=Colour, max_tokens=100, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Colour)


def test_the_stream_helper_gives_the_same_as_parse(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=INSTRUCT, messages=MESSAGES, response_format=Colour, max_tokens=100, temperature=0
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert kinds >= {"chunk", "content.delta", "content.done"}
    parsed = final.choices[0].message.parsed
    assert isinstance(parsed, Colour)
    assert Colour.model_validate_json(final.choices[0].message.content or "") == parsed


def test_a_cut_answer_is_told_apart(client: OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=INSTRUCT, messages=MESSAGES, response_format=Colour, max_tokens=2
        )


async def test_the_asynchronous_client_streams(server: Server) -> None:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        stream = await client.completions.create(
            model=BASE, prompt="One, two,", max_tokens=6, stream=True, temperature=0
        )
        text = "".join([chunk.choices[0].text async for chunk in stream])
        whole = await client.completions.create(
            model=BASE, prompt="One, two,", max_tokens=6, temperature=0
        )
    assert isinstance(whole, Completion)
    assert text == whole.choices[0].text


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    listed = {model.id for model in client.models.list()}
    assert listed >= {INSTRUCT, BASE}
    assert client.models.retrieve(BASE).object == "model"


def test_every_answer_has_its_request_id(client: OpenAI) -> None:
    answer = client.completions.create(model=BASE, prompt="a", max_tokens=1)
    assert (answer._request_id or "").startswith("req_")


def test_a_tool_loop(client: OpenAI) -> None:
    """The model must call, gets the result and answers in words."""
    question = {"role": "user", "content": "Paint the wall."}

    def ask(*messages: Any, **options: Any) -> Choice:
        answer: ChatCompletion = client.chat.completions.create(
            model=INSTRUCT,
            messages=messages,
            tools=[TOOL],  # type: ignore[list-item]
            max_tokens=40,
            temperature=0,
            **options,
        )
        return answer.choices[0]

    asked = ask(question, tool_choice=FORCED)
    assert asked.finish_reason == "tool_calls"
    [call] = asked.message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.function.name == "paint"
    assert 0 <= json.loads(call.function.arguments)["a"] <= 99
    result = {"role": "tool", "tool_call_id": call.id, "content": "The wall is red."}
    told = ask(question, asked.message, result, tool_choice="none")
    assert told.message.content
    assert not told.message.tool_calls

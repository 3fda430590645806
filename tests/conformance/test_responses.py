"""OpenAI's Python package on the Responses API: its answers are typed, and its helpers work."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseFunctionToolCall,
    ResponseInputParam,
)
from pydantic import BaseModel, ConfigDict, Field

from tests.e2e.server import INSTRUCT

QUESTION = "Name a colour."
PAINT: FunctionToolParam = {
    "type": "function",
    "name": "paint",
    "description": "Paint a wall.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=20)
    red: int = Field(ge=0, le=255)


OPTIONS: dict[str, dict[str, Any]] = {
    "text": {},
    "instructions": {"instructions": "You are brief."},
    "a forced call": {"tools": [PAINT], "tool_choice": {"type": "function", "name": "paint"}},
    "a schema": {
        "text": {
            "format": {
                "type": "json_schema",
                "name": "colour",
                "schema": Colour.model_json_schema(),
                "strict": True,
            }
        }
    },
}


def test_a_response_is_valid_in_strict_mode(client: OpenAI) -> None:
    answer = client.responses.with_raw_response.create(
        model=INSTRUCT, input=QUESTION, max_output_tokens=16, temperature=0
    )
    response = Response.model_validate_json(answer.http_response.text, strict=True)
    assert response.output_text
    assert response.usage is not None
    assert 0 < response.usage.output_tokens <= 16


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_stream_ends_with_the_whole_response(client: OpenAI, options: dict[str, Any]) -> None:
    asked: dict[str, Any] = {
        "model": INSTRUCT,
        "input": QUESTION,
        "max_output_tokens": 60,
        "temperature": 0,
    } | options
    events = list(client.responses.create(stream=True, **asked))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type in {"response.completed", "response.incomplete"}
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == last.response.output_text
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == last.response.output
    if "tools" in options:
        assert [item.type for item in done] == ["function_call"]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tokens_are_counted_as_usage_counts_them(client: OpenAI, options: dict[str, Any]) -> None:
    counted = client.responses.input_tokens.count(model=INSTRUCT, input=QUESTION, **options)
    answer = client.responses.create(
        model=INSTRUCT, input=QUESTION, max_output_tokens=16, **options
    )
    assert answer.usage is not None
    assert counted.input_tokens == answer.usage.input_tokens


def test_parse_gives_an_object(client: OpenAI) -> None:
    answer = client.responses.parse(
        model=INSTRUCT, input=QUESTION, text_format=Colour, max_output_tokens=100, temperature=0
    )
    assert isinstance(answer.output_parsed, Colour)


def test_the_stream_helper_gives_the_same_as_parse(client: OpenAI) -> None:
    with client.responses.stream(
        model=INSTRUCT, input=QUESTION, text_format=Colour, max_output_tokens=100, temperature=0
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert kinds >= {"response.created", "response.output_text.delta", "response.completed"}
    assert isinstance(final.output_parsed, Colour)
    assert Colour.model_validate_json(final.output_text) == final.output_parsed


def test_a_cut_answer_says_why(client: OpenAI) -> None:
    answer = client.responses.create(
        model=INSTRUCT,
        input=QUESTION,
        max_output_tokens=16,
        text={
            "format": {
                "type": "json_schema",
                "name": "long",
                "schema": {"type": "string", "minLength": 500},
            }
        },
    )
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_a_tool_loop(client: OpenAI) -> None:
    """The model must call, gets the result and answers in words."""
    question: ResponseInputParam = [{"role": "user", "content": "Paint the wall."}]
    asked = client.responses.create(
        model=INSTRUCT,
        input=question,
        tools=[PAINT],
        tool_choice={"type": "function", "name": "paint"},
        max_output_tokens=60,
        temperature=0,
    )
    [call] = asked.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert call.name == "paint"
    assert 0 <= json.loads(call.arguments)["a"] <= 99
    result = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": "The wall is red.",
    }
    turns: list[Any] = [*question, call, result]
    told = client.responses.create(
        model=INSTRUCT,
        input=turns,
        tools=[PAINT],
        tool_choice="none",
        max_output_tokens=20,
        temperature=0,
    )
    assert [item.type for item in told.output] == ["message"]
    assert told.output_text


def test_errors_have_the_class_that_the_sdk_gives_them(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="no-such-model", input=QUESTION)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=INSTRUCT, input="swan " * 20_000)
    assert refused.value.code == "context_length_exceeded"

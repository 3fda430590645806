"""Tool calls and structured output on the real models, through OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from pydantic import BaseModel, Field

from tests.e2e.server import BASE, INSTRUCT, Server

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city now",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
        },
    },
}
TIME: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city now",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}
TOOLS = [WEATHER, TIME]
QUESTION = {"role": "user", "content": "What is the weather in Oslo?"}


def ask(client: OpenAI, **options: Any) -> ChatCompletion:
    settings: dict[str, Any] = {
        "model": INSTRUCT,
        "messages": [QUESTION],
        "tools": TOOLS,
        "temperature": 0,
        "max_tokens": 120,
    }
    answer: ChatCompletion = client.chat.completions.create(**(settings | options))
    return answer


def arguments(call: Any) -> Any:
    """The call's arguments, valid for its tool."""
    schemas = {each["function"]["name"]: each["function"]["parameters"] for each in TOOLS}
    value = json.loads(call.function.arguments)
    jsonschema.validate(value, schemas[call.function.name])
    return value


def calls(answer: ChatCompletion) -> list[Any]:
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls
    assert len({call.id for call in choice.message.tool_calls}) == len(choice.message.tool_calls)
    return list(choice.message.tool_calls)


@pytest.fixture
def same_workers(server: Server) -> Iterator[None]:
    before = server.worker_pids()
    yield
    assert server.worker_pids() == before


@pytest.mark.parametrize("model", [INSTRUCT, BASE])
def test_a_required_call_is_made(client: OpenAI, model: str) -> None:
    answer = ask(client, model=model, tool_choice="required", parallel_tool_calls=False)
    (call,) = calls(answer)
    assert arguments(call)["city"]


@pytest.mark.parametrize("name", ["get_weather", "get_time"])
@pytest.mark.parametrize("model", [INSTRUCT, BASE])
def test_a_named_function_is_called_whatever_the_question(
    client: OpenAI, model: str, name: str
) -> None:
    choice = {"type": "function", "function": {"name": name}}
    answer = ask(client, model=model, tool_choice=choice, parallel_tool_calls=False)
    (call,) = calls(answer)
    assert call.function.name == name
    arguments(call)


@pytest.mark.parametrize("seed", range(4))
def test_a_call_is_valid_at_any_temperature(client: OpenAI, seed: int) -> None:
    answer = ask(client, tool_choice="required", temperature=1.5, seed=seed, max_tokens=400)
    for call in calls(answer):
        arguments(call)


def test_a_model_that_keeps_calling_is_stopped_with_all_calls_complete(client: OpenAI) -> None:
    answer = ask(client, tool_choice="required", max_tokens=600)
    made = calls(answer)
    assert 1 <= len(made) <= 8
    for call in made:
        arguments(call)


def test_tools_offered_do_not_get_in_the_way_of_a_plain_answer(client: OpenAI) -> None:
    question = {"role": "user", "content": "What is the capital of Australia?"}
    answer = ask(client, messages=[question])
    assert "Canberra" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


def test_a_call_the_model_opens_by_itself_is_valid(client: OpenAI) -> None:
    """The prompt leads the model to open a call; then the grammar allows only a valid call."""
    lead = {"role": "user", "content": "Repeat exactly: <tool_call>"}
    said = {"role": "assistant", "content": "<tool_call>"}
    answer = ask(client, messages=[lead, said, lead, said, lead])
    for call in calls(answer):
        arguments(call)


def test_arguments_stream_in_pieces(client: OpenAI) -> None:
    stream: Any = ask(client, tool_choice="required", parallel_tool_calls=False, stream=True)
    deltas = [chunk.choices[0] for chunk in stream if chunk.choices]
    pieces = [call for each in deltas for call in each.delta.tool_calls or []]
    assert pieces[0].id
    assert pieces[0].function.name in {"get_weather", "get_time"}
    assert pieces[0].function.arguments == ""
    assert all(piece.id is None and piece.function.name is None for piece in pieces[1:])
    assert len(pieces) > 3
    json.loads("".join(piece.function.arguments for piece in pieces))
    assert all(not each.delta.content for each in deltas)
    assert [each.finish_reason for each in deltas if each.finish_reason] == ["tool_calls"]


@pytest.mark.parametrize("model", [INSTRUCT, BASE])
def test_a_call_and_its_result_lead_to_an_answer(client: OpenAI, model: str) -> None:
    first = ask(client, model=model, tool_choice="required", parallel_tool_calls=False)
    (call,) = calls(first)
    result = {"role": "tool", "tool_call_id": call.id, "content": "Rain, 4 degrees."}
    second = ask(
        client,
        model=model,
        messages=[QUESTION, first.choices[0].message, result],
        tool_choice="none",
        max_tokens=40,
    )
    assert second.choices[0].message.content
    assert second.choices[0].message.tool_calls is None


CALLED = {"name": "get_weather", "arguments": '{"city": "Oslo", "unit": "celsius"}'}
FUNCTION = WEATHER["function"]
LOOPS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [
            QUESTION,
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "type": "function", "function": CALLED}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "Rain, 4 degrees."},
        ],
        "tools": [WEATHER],
        "tool_choice": "auto",
    },
    "/v1/responses": {
        "input": [
            QUESTION,
            {"type": "function_call", "call_id": "c1", **CALLED},
            {"type": "function_call_output", "call_id": "c1", "output": "Rain, 4 degrees."},
        ],
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": "auto",
    },
    "/v1/messages": {
        "messages": [
            QUESTION,
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "tool_use",
                        "id": "c1",
                        "name": "get_weather",
                        "input": json.loads(CALLED["arguments"]),
                    }
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "Rain, 4 degrees."}
                ],
            },
        ],
        "tools": [{"name": "get_weather", "input_schema": FUNCTION["parameters"]}],
        "tool_choice": {"type": "auto"},
    },
}


def conversation_of(path: str) -> str:
    return "input" if path == "/v1/responses" else "messages"


FIRST_TURNS = {path: {**body, conversation_of(path): [QUESTION]} for path, body in LOOPS.items()}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("bodies", [FIRST_TURNS, LOOPS], ids=["first turn", "behind a result"])
@pytest.mark.parametrize("path", LOOPS)
def test_a_base_model_that_may_call_answers_with_text_and_says_that_it_calls_nothing_by_itself(
    server: Server, path: str, bodies: dict[str, dict[str, Any]], stream: bool
) -> None:
    most = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    body = {**bodies[path], "model": BASE, "stream": stream, most: 8, "temperature": 0}
    answer = httpx.post(server.url + path, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    said = answer.headers["x-dragoman-ignored"]
    assert said == "tools (called only where tool_choice requires it)"


@pytest.mark.parametrize(
    ("counting", "path"),
    [
        ("/apply-template", "/v1/chat/completions"),
        ("/v1/chat/completions/input_tokens", "/v1/chat/completions"),
        ("/v1/responses/input_tokens", "/v1/responses"),
        ("/v1/messages/count_tokens", "/v1/messages"),
    ],
)
def test_where_a_prompt_is_only_rendered_the_tools_of_a_base_model_are_named_too(
    server: Server, counting: str, path: str
) -> None:
    body = {**FIRST_TURNS[path], "model": BASE}
    answer = httpx.post(server.url + counting, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    said = answer.headers["x-dragoman-ignored"]
    assert said == "tools (called only where tool_choice requires it)"
    instruct = httpx.post(server.url + counting, json={**body, "model": INSTRUCT}, timeout=120)
    assert "x-dragoman-ignored" not in instruct.headers


def test_running_into_max_tokens_inside_a_call_is_length(client: OpenAI) -> None:
    answer = ask(client, tool_choice="required", max_tokens=24)
    assert answer.choices[0].finish_reason == "length"


def test_with_a_response_format_the_answer_is_a_call_or_that(client: OpenAI) -> None:
    form = {"type": "json_object"}
    reasons = set()
    for seed in range(6):
        answer = ask(client, response_format=form, temperature=1, seed=seed, max_tokens=300)
        choice = answer.choices[0]
        reasons.add(choice.finish_reason)
        if choice.finish_reason == "tool_calls":
            for call in calls(answer):
                arguments(call)
        elif choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content or ""), dict)
    # Of 6 answers at temperature 1, at least 1 is a finished call and 1 a finished object.
    assert reasons >= {"tool_calls", "stop"}


class Person(BaseModel, extra="forbid"):
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)
    mood: Literal["good", "bad"]


STORY = {"role": "user", "content": "Ann is 31 years old and in a good mood. Describe her."}


def test_parse_gives_an_object_of_the_given_class(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=INSTRUCT,
        messages=[STORY],  # type: ignore[list-item]
        response_format=Person,
        temperature=0,
    )
    person = answer.choices[0].message.parsed
    assert isinstance(person, Person)
    assert answer.choices[0].finish_reason == "stop"


def test_parse_gives_the_arguments_of_a_tool_as_an_object(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=INSTRUCT,
        messages=[STORY],  # type: ignore[list-item]
        tools=[openai.pydantic_function_tool(Person)],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    message: ChatCompletionMessage = answer.choices[0].message
    assert message.tool_calls
    assert isinstance(message.tool_calls[0].function.parsed_arguments, Person)  # type: ignore[union-attr]


def test_structured_output_streams_and_validates(client: OpenAI) -> None:
    schema = Person.model_json_schema()
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    stream: Any = ask(
        client,
        messages=[STORY],
        tools=[],
        response_format=form,
        temperature=1,
        max_tokens=300,
        stream=True,
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert sum(map(bool, texts)) > 1
    Person.model_validate_json("".join(texts))


def bad_tool(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": schema}}
    function = {"name": name, "parameters": parameters, "strict": True}
    return {"type": "function", "function": function}


@pytest.mark.usefixtures("same_workers")
@pytest.mark.parametrize(
    ("options", "param", "said"),
    [
        (
            {"tools": [WEATHER, bad_tool("culprit", {"not": {"minLength": 1}})]},
            "tools[1]",
            "culprit.*'not'",
        ),
        (
            {"tools": [WEATHER, bad_tool("culprit", {"pattern": "(?<=a)b"})]},
            "tools[1]",
            "culprit.*look-behind",
        ),
        (
            {"tools": [WEATHER, bad_tool("culprit", {"oneOf": [{}, {"type": "null"}]})]},
            "tools[1]",
            "culprit.*oneOf",
        ),
        (
            {"tools": [WEATHER, bad_tool("culprit", {"type": "string", "pattern": "(" * 3_000})]},
            "tools[1]",
            "culprit",
        ),
        ({"tools": [WEATHER, WEATHER]}, "tools", "get_weather"),
        ({"tools": [bad_tool(f"t{n}", {}) for n in range(129)]}, "tools", "128"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "missing"}}},
            "tool_choice",
            "missing",
        ),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "no tools"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"uniqueItems": True}, "strict": True},
                }
            },
            "response_format",
            "'uniqueItems'",
        ),
        ({"extra_body": {"regex": "(?<=a)b"}}, "regex", "look-behind"),
        ({"extra_body": {"choice": ["a"] * 5001}}, "choice", "5000"),
        ({"extra_body": {"lark": "start: ("}}, "lark", ""),
        ({"extra_body": {"grammar": "root ::= x"}}, "grammar", ""),
    ],
)
def test_what_cannot_be_enforced_is_400_and_says_what(
    client: OpenAI, options: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=f"(?s){said}") as caught:
        ask(client, **options)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("regex", "(?<=a)b"),
        ("choice", ["a"] * 5001),
        ("lark", "start: ("),
        ("grammar", "root ::= x"),
    ],
)
def test_a_completion_names_the_constraint_at_fault(client: OpenAI, name: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=BASE, prompt="Once", extra_body={name: value})
    assert (caught.value.param, caught.value.code) == (name, "invalid_constraint")


# What clients send without strict: patterns and keywords that no grammar holds.
LOOSE: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "subscribe",
        "description": "Subscribe an address to tags",
        "parameters": {
            "type": "object",
            "properties": {
                "email": {"type": "string", "pattern": "^(?!a)[a-z]{3}$", "maxLength": 20},
                "tags": {
                    "type": "array",
                    "items": {"enum": ["x", "y"]},
                    "minItems": 1,
                    "uniqueItems": True,
                },
            },
            "required": ["email", "tags"],
        },
    },
}
LOOSENED = [
    "tools[1].parameters.properties.email.pattern",
    "tools[1].parameters.properties.tags.uniqueItems",
]


@pytest.mark.parametrize("model", [INSTRUCT, BASE])
def test_a_tool_that_cannot_be_enforced_is_served_and_said_beside_others(
    client: OpenAI, model: str
) -> None:
    create: Any = client.chat.completions.with_raw_response.create
    raw = create(
        model=model,
        messages=[QUESTION],
        tools=[WEATHER, LOOSE],
        tool_choice={"type": "function", "function": {"name": "subscribe"}},
        temperature=0,
        max_tokens=120,
    )
    assert raw.headers["x-dragoman-loosened"] == ", ".join(LOOSENED)
    answer = raw.parse()
    assert answer.usage is not None
    assert answer.usage.model_extra is not None
    assert answer.usage.model_extra["loosened"] == LOOSENED
    (call,) = answer.choices[0].message.tool_calls or []
    written = json.loads(call.function.arguments)
    schema = LOOSE["function"]["parameters"]
    violated = {
        f"tools[1].parameters.{'.'.join(map(str, error.schema_path))}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(written)
    }
    assert set(answer.usage.model_extra.get("violations", [])) == violated
    assert set(raw.headers.get("x-dragoman-violated", "").split(", ")) - {""} == violated
    # What is left of the schema is enforced.
    assert violated <= set(LOOSENED)
    assert len(written["email"]) <= 20


def test_a_stream_says_what_was_loosened_before_and_after(client: OpenAI) -> None:
    create: Any = client.chat.completions.with_raw_response.create
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    stream = create(
        model=INSTRUCT,
        messages=[QUESTION],
        response_format={"type": "json_schema", "json_schema": {"name": "l", "schema": schema}},
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=60,
    )
    place = "response_format.json_schema.schema.uniqueItems"
    assert stream.headers["x-dragoman-loosened"] == place
    *_, last = stream.parse()
    assert last.usage.model_extra["loosened"] == [place]

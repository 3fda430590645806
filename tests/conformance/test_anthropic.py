"""Anthropic's Python package: its answers are typed, and its helpers work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import (
    Message,
    MessageParam,
    TextBlock,
    ToolChoiceToolParam,
    ToolParam,
    ToolUseBlock,
)
from anthropic.types.beta import (
    BetaContextManagementConfigParam,
    BetaMessageParam,
    BetaToolResultBlockParam,
    BetaToolUseBlockParam,
)
from pydantic import BaseModel, ConfigDict, Field

from tests.e2e.server import INSTRUCT, Server, running_server

MESSAGES: list[MessageParam] = [{"role": "user", "content": "Name a colour."}]
PAINT: ToolParam = {
    "name": "paint",
    "description": "Paint a wall.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a"],
        "additionalProperties": False,
    },
}
FORCED: ToolChoiceToolParam = {"type": "tool", "name": "paint"}
# The package has no parameter for it any more.
GREEDY = {"temperature": 0}


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=20)
    red: int = Field(ge=0, le=255)


def _client(server: Server, key: str = "unused") -> Anthropic:
    return Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=120)


@pytest.fixture
def claude(server: Server) -> Iterator[Anthropic]:
    """The SDK's client of the server."""
    with _client(server) as client:
        yield client


def _text(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


def _prompt_tokens(message: Message) -> int:
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def test_a_message_is_valid_in_strict_mode(claude: Anthropic) -> None:
    answer = claude.messages.with_raw_response.create(
        model=INSTRUCT, messages=MESSAGES, max_tokens=8, extra_body=GREEDY
    )
    message = Message.model_validate_json(answer.http_response.text, strict=True)
    assert message.role == "assistant"
    assert 0 < message.usage.output_tokens <= 8
    assert _text(message)


KINDS = {
    "message_start",
    "content_block_start",
    "content_block_delta",
    "text",
    "input_json",
    "content_block_stop",
    "message_delta",
    "message_stop",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "text": {},
    "a system prompt": {"system": "You are brief."},
    "a forced call": {"tools": [PAINT], "tool_choice": FORCED},
    "a schema": {
        "output_config": {"format": {"type": "json_schema", "schema": Colour.model_json_schema()}}
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_stream_accumulates_to_the_whole_message(
    claude: Anthropic, options: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {
        "model": INSTRUCT,
        "messages": MESSAGES,
        "max_tokens": 60,
        "extra_body": GREEDY,
    } | options
    with claude.messages.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_message()
    kinds = [event.type for event in events]
    assert all(isinstance(event, BaseModel) for event in events)
    assert set(kinds) <= KINDS
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") > 0
    text = "".join(event.text for event in events if event.type == "text")
    assert text == _text(final)
    assert final.stop_reason in {"end_turn", "max_tokens", "tool_use"}
    assert 0 < final.usage.output_tokens <= 60
    if "tools" in options:
        [call] = final.content
        assert isinstance(call, ToolUseBlock)
        arguments = "".join(e.partial_json for e in events if e.type == "input_json")
        assert json.loads(arguments) == call.input


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tokens_are_counted_as_usage_counts_them(
    claude: Anthropic, options: dict[str, Any]
) -> None:
    counted = claude.messages.count_tokens(model=INSTRUCT, messages=MESSAGES, **options)
    answer = claude.messages.create(model=INSTRUCT, messages=MESSAGES, max_tokens=1, **options)
    assert counted.input_tokens == _prompt_tokens(answer)


def test_a_stop_sequence_ends_the_answer(claude: Anthropic) -> None:
    answer = claude.messages.create(
        model=INSTRUCT,
        messages=MESSAGES,
        max_tokens=20,
        stop_sequences=[" two"],
        output_config={"format": {"type": "json_schema", "schema": {"const": "one two three"}}},
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " two")
    assert _text(answer) == '"one'


def test_max_tokens_end_the_answer(claude: Anthropic) -> None:
    answer = claude.messages.create(
        model=INSTRUCT,
        messages=MESSAGES,
        max_tokens=2,
        output_config={"format": {"type": "json_schema", "schema": Colour.model_json_schema()}},
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("max_tokens", None)
    assert answer.usage.output_tokens == 2


def test_a_tool_loop(claude: Anthropic) -> None:
    """The model must call, gets the result and answers in words."""
    question: MessageParam = {"role": "user", "content": "Paint the wall."}
    asked = claude.messages.create(
        model=INSTRUCT,
        messages=[question],
        tools=[PAINT],
        tool_choice=FORCED,
        max_tokens=60,
        extra_body=GREEDY,
    )
    assert asked.stop_reason == "tool_use"
    [call] = asked.content
    assert isinstance(call, ToolUseBlock)
    assert call.name == "paint"
    arguments: dict[str, Any] = call.input
    assert arguments.keys() == {"a"}
    assert 0 <= arguments["a"] <= 99
    told = claude.messages.create(
        model=INSTRUCT,
        messages=[
            question,
            {"role": "assistant", "content": asked.content},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": call.id, "content": "The wall is red."}
                ],
            },
        ],
        tools=[PAINT],
        tool_choice={"type": "none"},
        max_tokens=20,
        extra_body=GREEDY,
    )
    assert told.stop_reason in {"end_turn", "max_tokens"}
    assert _text(told)


def test_parse_gives_an_object(claude: Anthropic) -> None:
    answer = claude.messages.parse(
        model=INSTRUCT, messages=MESSAGES, output_format=Colour, max_tokens=100, extra_body=GREEDY
    )
    assert isinstance(answer.parsed_output, Colour)


def test_what_was_read_before_comes_from_the_cache(claude: Anthropic) -> None:
    turns: list[MessageParam] = [
        {"role": "user", "content": "Seventeen swans swam past the old stone bridge. " * 8},
        {"role": "assistant", "content": "So they did."},
        {"role": "user", "content": "How many?"},
    ]
    first, second = (
        claude.messages.create(model=INSTRUCT, messages=turns, max_tokens=4, extra_body=GREEDY)
        for _ in range(2)
    )
    assert (second.usage.cache_read_input_tokens or 0) > 0
    assert _prompt_tokens(first) == _prompt_tokens(second)


def test_results_of_old_calls_are_cleared_and_counted(claude: Anthropic) -> None:
    turns: list[BetaMessageParam] = [{"role": "user", "content": "Paint the walls."}]
    for number in range(2):
        name = f"toolu_{number}"
        call: BetaToolUseBlockParam = {
            "type": "tool_use",
            "id": name,
            "name": "paint",
            "input": {"a": number},
        }
        result: BetaToolResultBlockParam = {
            "type": "tool_result",
            "tool_use_id": name,
            "content": "The wall is red. " * 40,
        }
        turns += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    edits: BetaContextManagementConfigParam = {
        "edits": [
            {
                "type": "clear_tool_uses_20250919",
                "trigger": {"type": "tool_uses", "value": 1},
                "keep": {"type": "tool_uses", "value": 1},
            }
        ]
    }
    told = claude.beta.messages.create(
        model=INSTRUCT, messages=turns, context_management=edits, max_tokens=4, extra_body=GREEDY
    )
    counted = claude.beta.messages.count_tokens(
        model=INSTRUCT, messages=turns, context_management=edits
    )
    assert told.context_management is not None
    [applied] = told.context_management.applied_edits
    assert applied.type == "clear_tool_uses_20250919"
    assert applied.cleared_tool_uses == 1
    assert applied.cleared_input_tokens > 100
    assert counted.context_management is not None
    all_tokens = counted.context_management.original_input_tokens
    assert all_tokens - applied.cleared_input_tokens == counted.input_tokens
    cached = told.usage.cache_read_input_tokens or 0
    assert told.usage.input_tokens + cached == counted.input_tokens


def test_a_compaction_comes_back_as_input(claude: Anthropic) -> None:
    swans: BetaMessageParam = {"role": "user", "content": "Seventeen swans swam past. " * 8}
    summed_up = claude.beta.messages.create(
        model=INSTRUCT,
        messages=[swans],
        compaction={"type": "summarize"},
        max_tokens=12,
        extra_body=GREEDY,
    )
    assert summed_up.stop_reason == "compaction"
    [block] = summed_up.content
    assert block.type == "compaction"
    assert block.content
    more: list[BetaMessageParam] = [
        {"role": "assistant", "content": summed_up.content},
        {"role": "user", "content": "How many?"},
    ]
    told = claude.beta.messages.create(
        model=INSTRUCT, messages=more, max_tokens=4, extra_body=GREEDY
    )
    assert told.stop_reason in {"end_turn", "max_tokens"}


def test_errors_have_the_class_that_the_sdk_gives_them(claude: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="no-such-model", messages=MESSAGES, max_tokens=1)
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+"):
        claude.messages.create(
            model=INSTRUCT, messages=[{"role": "user", "content": "swan " * 20_000}], max_tokens=1
        )
    with pytest.raises(anthropic.BadRequestError, match="there is no tool paint"):
        claude.messages.create(model=INSTRUCT, messages=MESSAGES, max_tokens=1, tool_choice=FORCED)


def test_a_wrong_key_is_an_authentication_error() -> None:
    with running_server("--api-key", "right") as keyed:
        with _client(keyed, "wrong") as client, pytest.raises(anthropic.AuthenticationError):
            client.messages.count_tokens(model=INSTRUCT, messages=MESSAGES)
        with _client(keyed, "right") as client:
            assert client.models.list().data

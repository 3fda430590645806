"""Stop strings of a request end what the user sees, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.parser import ReplyParser
from server.reply.writer import write_calls
from tests.unit.reply.replies import CALLS, TOOLS, read_in_pieces

NAMES = list(builtin_tables())


def read(name: str, text: str, stops: list[str], **options: Any) -> tuple[Any, str | None]:
    """The message and the stop string, the same for every way to cut the text."""
    found = []
    for size in (len(text) or 1, 1, 2, 3, 7):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        message, parser = read_in_pieces(
            pieces, builtin_format(name), tools=TOOLS, stops=stops, **options
        )
        calls = [(call.name, json.loads(call.arguments)) for call in message.tool_calls]
        found.append((message.content, message.reasoning_content, calls, parser.stop))
    assert all(each == found[0] for each in found)
    content, reasoning, calls, stop = found[0]
    return (content, reasoning, calls), stop


def test_a_stop_string_in_reasoning_is_text() -> None:
    text = "<think>\nOne.\n\nTwo.\n</think>\n\nThree.\n\nFour."
    message, stop = read("hermes", text, ["\n\n"], tools_active=False)
    assert message == ("Three.", "One.\n\nTwo.", [])
    assert stop == "\n\n"


def test_white_space_at_markers_is_no_stop_string() -> None:
    text = (
        '<think>\nHm.\n</think>\n\nLook.\n\n<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    )
    message, stop = read("hermes", text, ["\n\n"])
    assert message == ("Look.", "Hm.", [("f", {})])
    assert stop is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stops", [["Oslo", '"', "get", "\n", ":", "}", "<", "|", "[", " "]])
def test_neither_markup_nor_arguments_of_a_call_hold_a_stop_string(
    name: str, stops: list[str]
) -> None:
    calls = builtin_format(name).calls
    assert calls
    message, stop = read(name, write_calls(CALLS[:1], calls), stops)
    assert message[2] == [("get_weather", {"city": "Oslo", "days": 3})]
    assert stop is None


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("hermes", "<think>\nEND\n</think>\n\n", ""),
        ("qwen3-coder", "<think>\nEND\n</think>\n\n", ""),
        ("mistral-args", "[THINK]END[/THINK]", ""),
        ("gemma-4", "<|channel>thought\nEND<channel|>", ""),
        ("cohere", "<|START_THINKING|>END<|END_THINKING|><|START_RESPONSE|>", "<|END_RESPONSE|>"),
        (
            "gpt-oss",
            "<|channel|>analysis<|message|>END<|end|><|start|>assistant<|channel|>final<|message|>",
            "<|return|>",
        ),
        ("functionary-3_2", ">>>all\n", ""),
    ],
)
def test_the_visible_answer_ends_at_the_stop_string_in_every_format(
    name: str, before: str, after: str
) -> None:
    message, stop = read(name, f"{before}One END two{after}", ["END"])
    assert message[0] == "One "
    assert stop == "END"


def test_of_many_stop_strings_the_first_in_the_text_counts() -> None:
    stops = ["zzz", "yyy", "xxx", "three", "two", "one"]
    message, stop = read("hermes", "zero one two three", stops, tools_active=False)
    assert (message[0], stop) == ("zero ", "one")


def test_half_a_stop_string_before_a_call_is_content() -> None:
    text = 'Wait: ST<tool_call>{"name": "f", "arguments": {}}</tool_call>OP now'
    message, stop = read("hermes", text, ["STOP"])
    assert message[0] == "Wait: STOP now"
    assert stop is None


def test_half_a_stop_string_at_the_end_is_content() -> None:
    message, stop = read("hermes", "Wait: ST", ["STOP"], tools_active=False)
    assert (message[0], stop) == ("Wait: ST", None)


def test_a_stop_string_in_what_only_looked_like_a_call_counts() -> None:
    message, stop = read("hermes", "Hi <tool_call>no END call", ["END"])
    assert (message[0], stop) == ("Hi <tool_call>no ", "END")


def test_a_stop_string_of_white_space_is_found_as_soon_as_it_is_there() -> None:
    parser = ReplyParser(builtin_format("hermes"), tools_active=False, stops=["\n\n"])
    parser.feed("<think>\nHm.\n</think>\n\nOne.\n\n")
    assert parser.stop == "\n\n"


def test_nothing_follows_a_stop_string() -> None:
    parser = ReplyParser(builtin_format("hermes"), tools_active=True, stops=["END"])
    parser.feed("One END")
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert parser.feed(f" two {call}") == []
    assert parser.finish() == []

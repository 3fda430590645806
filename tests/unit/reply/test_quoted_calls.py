"""Calls that Markdown marks as code: quoted in an explanation, or meant."""

from __future__ import annotations

import pytest

from server.core.reply import message_of
from server.core.request import ToolCall
from server.reply.builtin_formats import builtin_format
from server.reply.parser import ReplyParser, parse_reply
from server.reply.source import Source
from server.reply.writer import write_calls
from tests.unit.reply.replies import TOOLS
from tests.unit.reply.test_tolerant import NAMES, calls, read

JSON_CALL = '{"name": "get_weather", "arguments": {"city": "Oslo", "note": "a `b` ```c"}}'
ARGUMENTS = {"city": "Oslo", "note": "a `b` ```c"}
MARKED = f"<tool_call>\n{JSON_CALL}\n</tool_call>"
FENCED = f"```json\n{JSON_CALL}\n```"
MARKED_IN_BLOCK = f"```\n{MARKED}\n```"
# Command R's calls are fenced blocks themselves; those of the others are messages of their own.
OF_MARKERS = [name for name in NAMES if name not in {"command-r", "gpt-oss", "functionary-3_2"}]
BLOCKS = [FENCED, f"```\n[{JSON_CALL}]\n```", f"```json\n{JSON_CALL}```", MARKED_IN_BLOCK]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_block_amid_prose_is_quoted(name: str, block: str) -> None:
    text = f"A call looks like this:\n\n{block}\n\nIt asks for the weather."
    message = read(name, text)
    assert (message.tool_calls, message.content) == ([], text)


@pytest.mark.parametrize("end", ["Done", "Done.\n", "OK {", "See\n[", "f("])
@pytest.mark.parametrize("block", [*BLOCKS, f"```json\n{JSON_CALL}\n{JSON_CALL}\n```"])
@pytest.mark.parametrize("name", ["hermes", "mistral-nemo", "gemma-4"])
def test_little_text_behind_a_block_is_text(name: str, block: str, end: str) -> None:
    text = f"A call:\n{block}\n{end}"
    message = read(name, text)
    assert (message.tool_calls, message.content) == ([], text)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_block_that_ends_the_answer_is_a_call(name: str, block: str) -> None:
    for end in ("", "\n", "\n\n  "):
        message = read(name, f"I will look.\n\n{block}{end}")
        assert calls(message) == [("get_weather", ARGUMENTS)]
        assert str(message.content).startswith("I will look.")


@pytest.mark.parametrize("name", OF_MARKERS)
def test_calls_as_the_family_writes_them_count_by_the_same_rules(name: str) -> None:
    if not (own := builtin_format(name).calls):
        return
    call = write_calls([ToolCall(id="call_1", name="get_weather", arguments="{}")], own)
    for text, count in (
        (f"A call:\n```\n{call}\n```\nIt asks for the weather.", 0),
        (f"Write `{call}` to call.", 0),
        (f"I will look.\n```\n{call}\n```", 1),
        (f"```\n{call}\n```\nThis asks for the weather.", 1),
    ):
        assert len(read(name, text).tool_calls) == count


@pytest.mark.parametrize("name", NAMES)
def test_a_block_that_opens_the_answer_is_a_call_as_it_arrives(name: str) -> None:
    message = read(name, f"{FENCED}\nThis asks for the weather.")
    assert calls(message) == [("get_weather", ARGUMENTS)]
    assert message.content == "This asks for the weather."


def test_calls_in_a_block_stream_where_nothing_can_make_them_quotes() -> None:
    parser = ReplyParser(builtin_format("hermes"), tools_active=True, tools=TOOLS)
    begun = '```json\n{"name": "get_weather", "arguments": {"city": "Os'
    (call,) = message_of(parser.feed(begun)).tool_calls
    assert call.arguments == '{"city": "Os'


@pytest.mark.parametrize("name", NAMES)
def test_several_blocks_at_the_end_are_calls(name: str) -> None:
    if not (own := builtin_format(name).calls) or not own.several:
        return
    message = read(name, f"Both:\n{FENCED}\n\n{FENCED}\n")
    assert calls(message) == [("get_weather", ARGUMENTS)] * 2
    assert message.content == "Both:"


@pytest.mark.parametrize("name", NAMES)
def test_once_a_block_was_quoted_so_are_those_behind_it(name: str) -> None:
    text = f"In JSON:\n{FENCED}\nor in a list:\n```\n[{JSON_CALL}]\n```"
    message = read(name, text)
    assert (message.tool_calls, message.content) == ([], text)


@pytest.mark.parametrize("call", [MARKED, f"<tool_call>{JSON_CALL}</tool_call>"])
@pytest.mark.parametrize("name", NAMES)
def test_a_call_in_a_span_of_code_is_quoted(name: str, call: str) -> None:
    for text in (f"Write `{call}` to call.", f"Write ``x: {call} ``", f"`{call}`"):
        message = read(name, text)
        assert (message.tool_calls, message.content) == ([], text)


@pytest.mark.parametrize("text", ["Press ` now. ", "Press `x` now. ", "Press ``` now. "])
def test_a_backtick_that_opens_no_span_quotes_nothing(text: str) -> None:
    message = read("hermes", text + MARKED)
    assert calls(message) == [("get_weather", ARGUMENTS)]
    message = read("hermes", f"{text}{MARKED}\n`x`")
    assert len(message.tool_calls) == 1


def test_a_call_behind_a_block_of_code_is_a_call() -> None:
    code = "This runs:\n```sh\nls `pwd`\n```\n"
    for call in (MARKED, JSON_CALL):
        message = read("hermes", f"{code}{call}\nSo.")
        assert calls(message) == [("get_weather", ARGUMENTS)]
        assert str(message.content).startswith(code.strip())


def test_a_call_in_a_block_that_is_never_closed_is_a_call() -> None:
    message = read("hermes", f"This runs:\n```sh\nls\n{MARKED}")
    assert calls(message) == [("get_weather", ARGUMENTS)]


def test_a_quoted_call_of_a_tool_that_was_not_offered_changes_nothing() -> None:
    text = f"Like this:\n{FENCED.replace('get_weather', 'other')}\nThen:\n{FENCED}"
    assert calls(read("hermes", text)) == [("get_weather", ARGUMENTS)]


def test_a_call_in_a_block_that_a_limit_cuts_stays_with_its_arguments() -> None:
    text = 'Look:\n```json\n{"name": "get_weather", "arguments": {"city": "Os'
    message = parse_reply(text, builtin_format("hermes"), tools_active=True, tools=TOOLS, cut=True)
    (call,) = message.tool_calls
    assert call.arguments == '{"city": "Os'


def test_the_end_of_a_message_ends_the_answer() -> None:
    text = f"Look:\n{FENCED}\n<|end|>"
    assert calls(read("gpt-oss", text)) == [("get_weather", ARGUMENTS)]


def test_a_span_ends_with_its_message() -> None:
    final = "<|end|><|start|>assistant<|channel|>final<|message|>"
    message = read("gpt-oss", f"Press ` now. {MARKED}{final}It is `x`.")
    assert calls(message) == [("get_weather", ARGUMENTS)]
    assert str(message.content).split() == ["Press", "`", "now.", "It", "is", "`x`."]


@pytest.mark.parametrize(
    "unit", [f"` {MARKED}", f"`{MARKED}`", f"\nSo:\n{FENCED}", f"\n{FENCED}", "\n```\n<tool_call>"]
)
def test_no_text_is_read_many_times(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    take = Source.take

    def counted(source: Source, count: int) -> str:
        nonlocal taken
        taken += count
        return take(source, count)

    monkeypatch.setattr(Source, "take", counted)
    text = "x\n" + unit * 200
    parse_reply(text, builtin_format("hermes"), tools_active=True, tools=TOOLS)
    assert taken < 6 * len(text)

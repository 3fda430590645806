"""Calls that are not written as the family writes them are read where a tool of the name exists."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from server.core.reply import message_of
from server.core.request import Message
from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.parser import ReplyParser, parse_reply
from tests.unit.reply.replies import FOREIGN_CALLS, TOOLS, parse_in_pieces, without_ids

OSLO = '{"city": "Oslo", "days": 3}'
PREFIXES = {
    "gpt-oss": "<|channel|>final<|message|>",
    "muse": "<|start|>assistant to=user<|message|>",
    "functionary-3_2": ">>>all\n",
}
NAMES = list(builtin_tables())


def read(name: str, text: str, **options: Any) -> Message:
    """The message, which is the same in pieces."""
    text = PREFIXES.get(name, "") + text
    message = parse_reply(text, builtin_format(name), tools_active=True, tools=TOOLS, **options)
    in_pieces = parse_in_pieces(text, builtin_format(name), tools=TOOLS, **options)
    assert without_ids(in_pieces) == without_ids(message)
    return message


def calls(message: Message) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in message.tool_calls]


@pytest.mark.parametrize("form", FOREIGN_CALLS)
def test_a_call_in_another_form_is_a_call_in_every_family(form: str) -> None:
    # Seed-OSS writes no line breaks around values, so there they belong to the value.
    names = [name for name in NAMES if (name, form) != ("seed-oss", "Qwen, never opened")]
    for name, before in product(names, ("", "Let me look.\n")):
        message = read(name, before + FOREIGN_CALLS[form])
        (called,) = calls(message)
        assert called == ("get_weather", {"city": "Oslo", "days": 3})
        assert (message.content or "") == before.strip()


@pytest.mark.parametrize("name", ["hermes", "qwen3-coder", "mistral-nemo", "gemma-4", "lfm2"])
@pytest.mark.parametrize("form", FOREIGN_CALLS)
def test_without_a_tool_of_that_name_it_is_content(name: str, form: str) -> None:
    own = {"hermes": "<tool_call>", "qwen3-coder": "<tool_call>", "mistral-nemo": "[TOOL_CALLS]"}
    own |= {"gemma-4": "<|tool_call>call", "lfm2": "<|tool_call_start|>"}
    text = FOREIGN_CALLS[form].replace("get_weather", "other")
    if text.startswith(own[name]):
        return
    message = read(name, f"So: {text}")
    assert message.tool_calls == []
    assert message.content == f"So: {text}"


@pytest.mark.parametrize(
    "text",
    [
        '{"city": "Oslo"}',
        '{"name": "Bob", "arguments": {}}',
        '{"name": "get_weather"}',
        '{"name": "get_weather", "description": "d", "parameters": {"type": "object"}}',
        '{"answer": {"name": "get_weather", "arguments": {}}}',
        '[{"city": "Oslo"}]',
        '["get_weather", {"city": "Oslo"}]',
        "[x] todo\n[1, 2]\n[get_weather] is a tool",
        '```json\n{"city": "Oslo"}\n```',
        "```python\nprint(1)\n```",
        'The call {"name": "get_weather", "arguments": {}} is inside a line.',
        "Use <function=get_weather> to call.",
        "An <invoke> tag and a <tool_call> tag",
        "{",
        "[",
        "```",
        "a\n{",
        "a\n[TOOL_C",
    ],
)
def test_what_is_no_call_is_content_to_the_letter(text: str) -> None:
    for name in NAMES:
        message = read(name, text)
        assert (message.tool_calls, message.content) == ([], text), name


@pytest.mark.parametrize("name", ["hermes", "llama-3", "mistral-args", "qwen3-coder"])
def test_a_plain_json_answer_beside_tools_is_content(name: str) -> None:
    assert read(name, '{"city":"Oslo"}').content == '{"city":"Oslo"}'


def test_a_call_of_qwen_without_its_opening_marker() -> None:
    text = "<function=get_time>\n<parameter=city>\nx\n</parameter>\n</function>\n</tool_call>"
    message = read("qwen3-coder", text)
    assert (calls(message), message.content) == ([("get_time", {"city": "x"})], None)


def test_a_call_of_llama_behind_its_python_tag() -> None:
    call = '{"type": "function", "name": "get_time", "parameters": {"city": "x"}}'
    assert calls(read("llama-3", f"<|python_tag|>{call}")) == [("get_time", {"city": "x"})]


def test_calls_without_markers_follow_one_another() -> None:
    call = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
    found = [("get_weather", {"city": "Oslo"})] * 2
    for joint in ("\n", ", ", ";", "\n\n"):
        assert calls(read("hermes", call + joint + call)) == found
    assert calls(read("hermes", f"[{call}, {call}]")) == found
    assert calls(read("hermes", f"<tool_call>\n[{call},{call}]\n</tool_call>")) == found
    assert calls(read("mistral-nemo", f"[TOOL_CALLS]{call}")) == found[:1]


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        (json.dumps(OSLO), {"city": "Oslo", "days": 3}),
        (f"[{OSLO}]", {"city": "Oslo", "days": 3}),
        (f"```json\n{OSLO}\n```", {"city": "Oslo", "days": 3}),
        ("[]", {}),
        ('""', {}),
        ("null", {}),
    ],
)
@pytest.mark.parametrize("name", ["hermes", "cohere", "deepseek-v3_1", "mistral-args", "kimi-k2"])
def test_arguments_may_be_packed_otherwise(name: str, written: str, arguments: object) -> None:
    pattern = builtin_format(name).calls
    assert pattern
    call = pattern.call.replace("{name}", "get_weather").replace("{arguments}", written)
    call = call.replace("{id}", "abc").replace("{index}", "0")
    (found,) = calls(read(name, f"{pattern.begin}{call}{pattern.end}"))
    assert found == ("get_weather", arguments)


def test_fences_around_json_may_be_missing_where_the_family_writes_them() -> None:
    text = (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"{OSLO}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    )
    assert calls(read("deepseek-r1", text)) == [("get_weather", json.loads(OSLO))]


def test_text_around_such_a_call_stays() -> None:
    message = read("hermes", f'One.\n{{"name": "get_weather", "arguments": {OSLO}}}\nTwo.')
    assert message.content == "One.\n\nTwo."
    assert len(message.tool_calls) == 1


def test_calls_without_markers_behind_text_follow_one_another_on_lines() -> None:
    call = f'{{"name": "get_weather", "arguments": {OSLO}}}'
    message = read("hermes", f"One.\n{call}\n{call}")
    assert (calls(message), message.content) == ([("get_weather", json.loads(OSLO))] * 2, "One.")


def test_the_recipient_of_a_message_may_lack_its_namespace() -> None:
    text = f"<|channel|>commentary to=get_weather json<|message|>{OSLO}<|call|>"
    message = parse_reply(text, builtin_format("gpt-oss"), tools_active=True, tools=TOOLS)
    assert calls(message) == [("get_weather", json.loads(OSLO))]


def test_arguments_of_a_call_without_markers_stream_once_it_is_certain() -> None:
    parser = ReplyParser(builtin_format("hermes"), tools_active=True, tools=TOOLS)
    assert parser.feed('{"name": "get_weather", "argum') == []
    (call,) = message_of(parser.feed('ents": {"city": "Os')).tool_calls
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Os')


def test_only_the_familys_own_form_is_read_where_others_are_not_wanted() -> None:
    text = f'{{"name": "get_weather", "arguments": {OSLO}}}'
    assert read("hermes", text, tolerant=False).content == text
    own = f"<tool_call>{text}</tool_call>"
    assert calls(read("hermes", own, tolerant=False)) == [("get_weather", json.loads(OSLO))]


def test_a_call_in_reasoning_that_is_never_closed_is_a_call() -> None:
    call = f'<tool_call>{{"name": "get_weather", "arguments": {OSLO}}}</tool_call>'
    message = read("hermes", f"<think>Hm. {call}")
    assert (message.reasoning_content, len(message.tool_calls)) == ("Hm.", 1)
    message = read("hermes", f"<think>Hm. {call}</think>So.")
    assert (message.content, message.tool_calls) == ("So.", [])
    message = read("hermes", "<think>Write <tool_call> or so")
    assert message.reasoning_content == "Write <tool_call> or so"

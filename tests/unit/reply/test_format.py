"""Format tables: what is refused, what is built in, and what is read off a format."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from server.core.reply_format import ReplyFormat
from server.reply.builtin_formats import builtin_format, builtin_tables, format_from_table
from server.reply.control_tokens import control_tokens
from server.reply.prefix import reply_prefix
from tests.unit.reply.replies import FORMATS


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"resoning": {}}, "resoning"),
        ({"calls": {"call": "{name}{arguments}", "ends": "x"}}, "ends"),
        ({"calls": {"call": "{name}"}}, "{arguments}"),
        ({"calls": {"call": "<{name}>{arguments}", "dialect": "tagged"}}, "argument"),
        ({"calls": {"call": "{name}{arguments}", "dialect": "xml"}}, "xml"),
        ({"reasoning": {"start": "<t>"}}, "end"),
        ({"format": "herms"}, "hermes"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=r"mine\.toml: \[reply\]") as caught:
        format_from_table(table, "mine.toml")
    assert problem in str(caught.value)


def test_a_table_may_build_on_a_built_in_format() -> None:
    table = {"format": "hermes", "stops": ["\n\n\n"]}
    hermes = builtin_format("hermes")
    wanted = msgspec.structs.replace(hermes, stops=("\n\n\n",))
    assert format_from_table(table, "mine.toml") == wanted


@pytest.mark.parametrize("reply_format", FORMATS)
def test_a_format_crosses_the_process_border(reply_format: ReplyFormat) -> None:
    packed = msgspec.msgpack.encode(reply_format)
    assert msgspec.msgpack.decode(packed, type=ReplyFormat) == reply_format


def test_every_format_says_what_selects_it() -> None:
    assert [name for name, table in builtin_tables().items() if not table["select"]] == []


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("hermes", {"<think>", "</think>", "<tool_call>", "</tool_call>"}),
        ("mistral-call-id", {"[TOOL_CALLS]", "[CALL_ID]", "[ARGS]", "[THINK]", "[/THINK]"}),
        ("gemma-4", {"<|tool_call>", "<tool_call|>", '<|"|>', "<channel|>"}),
        ("deepseek-v3_2", {"｜DSML｜", "<think>"}),
        ("gpt-oss", {"<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>"}),
        ("deepseek-r1", {"<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"}),
    ],
)
def test_markers_are_the_control_tokens_of_the_syntax(name: str, tokens: set[str]) -> None:
    assert tokens <= control_tokens(builtin_format(name))


@pytest.mark.parametrize(
    ("name", "prompt", "prefix"),
    [
        ("hermes", "<|im_start|>assistant\n", ""),
        ("hermes", "<|im_start|>assistant\n<think>\n", "<think>\n"),
        ("hermes", "<|im_start|>assistant\n<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
        ("hermes", "Say <think> twice<|im_start|>assistant\n", ""),
        ("deepseek-v4", "<｜Assistant｜></think>", "</think>"),
        ("gpt-oss", "<|end|><|start|>assistant", "<|start|>assistant"),
        ("functionary-3_2", "<|end_header_id|>\n\n>>>", ">>>"),
        (
            "apriel",
            "<|begin_assistant|>\nHere are my reasoning steps:\n",
            "Here are my reasoning steps:\n",
        ),
    ],
)
def test_the_end_of_the_prompt_may_belong_to_the_reply(name: str, prompt: str, prefix: str) -> None:
    assert reply_prefix(prompt, builtin_format(name)) == prefix

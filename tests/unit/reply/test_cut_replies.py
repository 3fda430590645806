"""Replies that a limit cuts show no markup of what they had begun to write."""

from __future__ import annotations

from typing import Any

import pytest

from server.reply.builtin_formats import builtin_format
from server.reply.parser import parse_reply
from tests.unit.reply.replies import TOOLS
from tests.unit.reply.test_golden import CASES


def cut(name: str, text: str, prefix: str = "") -> tuple[str, str, int]:
    """Content, reasoning and the number of calls of a reply that was cut."""
    message = parse_reply(
        text, builtin_format(name), prefix=prefix, tools_active=True, tools=TOOLS, cut=True
    )
    assert not isinstance(message.content, list)
    return message.content or "", message.reasoning_content or "", len(message.tool_calls)


@pytest.mark.parametrize(("name", "text", "wanted"), CASES)
def test_wherever_a_reply_is_cut_only_content_is_content(
    name: str, text: str, wanted: dict[str, Any]
) -> None:
    for size in range(len(text) + 1):
        content, reasoning, count = cut(name, text[:size], wanted.get("prefix", ""))
        assert wanted.get("content", "").startswith(content.strip()), text[:size]
        assert wanted.get("reasoning", "").startswith(reasoning.strip()), text[:size]
        assert count <= len(wanted.get("calls", []))


def test_a_plain_answer_is_shown_as_far_as_it_goes() -> None:
    assert cut("hermes", "One, two and thr")[0] == "One, two and thr"
    assert cut("hermes", '{"city": "Os')[0] == '{"city": "Os'
    assert cut("llama-3", '{"city": "Os')[0] == '{"city": "Os'
    assert cut("llama-3", '{"name": "Bo')[0] == '{"name": "Bo'
    assert cut("gpt-oss", "Just text", "<|start|>assistant")[0] == "Just text"
    assert cut("functionary-3_2", "Just text", ">>>")[0] == "Just text"


def test_a_call_without_markers_is_none_of_the_content_once_it_names_a_tool() -> None:
    assert cut("hermes", 'So:\n{"name": "get_weather", "argu')[0] == "So:"
    assert cut("llama-3", '{"name": "get_we')[0] == ""


def test_a_reply_that_ends_by_itself_keeps_what_looks_like_a_marker() -> None:
    text = "It begins with <tool_call>"
    for size in (len(text), len(text) - 3):
        message = parse_reply(text[:size], builtin_format("hermes"), tools_active=True, tools=TOOLS)
        assert message.content == text[:size]

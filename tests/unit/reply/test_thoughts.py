"""The texts by which families open, close and leave out their reasoning."""

from __future__ import annotations

import pytest

from server.core.reply_format import Reasoning, ReplyFormat
from server.core.request import ToolCall
from server.reply.builtin_formats import builtin_format
from server.reply.parser import parse_reply
from server.reply.thoughts import thought_texts
from server.reply.writer import write_calls

THINK = ReplyFormat(name="think", reasoning=Reasoning(start="<think>\n", end="\n</think>\n\n"))
GPT_OSS = builtin_format("gpt-oss")
ASSISTANT = "<|start|>assistant"


def test_a_family_without_reasoning_has_no_such_texts() -> None:
    assert thought_texts(None, prefix="", tools_active=False) is None
    plain = ReplyFormat(name="plain")
    assert thought_texts(plain, prefix="", tools_active=False) is None
    assert thought_texts(builtin_format("functionary-3_2"), prefix="", tools_active=False) is None


@pytest.mark.parametrize(
    ("prefix", "opened"),
    [("", False), ("<think>\n", True), ("<think>\n\n</think>\n\n", False)],
)
def test_a_block_is_closed_as_its_template_writes_it(prefix: str, opened: bool) -> None:
    texts = thought_texts(THINK, prefix=prefix, tools_active=True)
    assert texts is not None
    assert texts.opened == opened
    assert texts.closing == "\n</think>\n\n"
    assert texts.skipping == ("\n</think>\n\n" if opened else "")


@pytest.mark.parametrize("tools_active", [True, False])
def test_a_message_that_reasons_is_followed_by_one_that_answers(tools_active: bool) -> None:
    texts = thought_texts(GPT_OSS, prefix=ASSISTANT, tools_active=tools_active)
    assert texts is not None
    opening = texts.openings[0]
    header = "" if not tools_active else "<|channel|>final<|message|>"
    reply = parse_reply(
        f"{opening}thoughts{texts.closing}{header}answer<|return|>",
        GPT_OSS,
        prefix=ASSISTANT,
        tools_active=tools_active,
    )
    assert (reply.reasoning_content, reply.content) == ("thoughts", "answer")
    again = f"{opening}a{texts.closing_again}answer<|return|>"
    reply = parse_reply(again, GPT_OSS, prefix=ASSISTANT, tools_active=tools_active)
    assert (reply.reasoning_content, reply.content) == ("a", "answer")


def test_a_reply_in_messages_can_begin_with_its_answer() -> None:
    texts = thought_texts(GPT_OSS, prefix=ASSISTANT, tools_active=False)
    assert texts is not None
    skipped = f"{texts.skipping}answer<|return|>"
    reply = parse_reply(skipped, GPT_OSS, prefix=ASSISTANT, tools_active=False)
    assert (reply.reasoning_content, reply.content) == (None, "answer")


@pytest.mark.parametrize("name", ["gpt-oss", "muse"])
def test_reasoning_that_a_call_must_follow_is_followed_by_its_beginning(name: str) -> None:
    form = builtin_format(name)
    assert form.calls is not None
    assert form.channels is not None
    texts = thought_texts(form, prefix=ASSISTANT, tools_active=True, must_call=True)
    assert texts is not None
    header = form.channels.calling and form.channels.calling + form.channels.message
    written = write_calls([ToolCall(id="", name="{name}", arguments='{"a": 1}')], form.calls)
    whole = (header or "") + written
    for cut in (texts.skipping, f"{texts.openings[0]}t{texts.closing}"):
        assert texts.skipping
        assert cut.endswith(texts.skipping)
        assert whole.startswith(texts.skipping)
        rest = whole.removeprefix(texts.skipping)
        text = (cut + rest).replace("{name}", "a.b")
        reply = parse_reply(text, form, prefix=ASSISTANT, tools_active=True)
        assert [(each.name, each.arguments) for each in reply.tool_calls] == [("a.b", '{"a": 1}')]
        assert not reply.content

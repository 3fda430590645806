"""What is derived for templates that no built-in format knows reads what they write."""

from __future__ import annotations

import json
from functools import cache

import pytest

from server.core.reply_format import ReplyFormat
from server.core.request import ChatPrompt, Message, ToolCall
from server.prompt.format_discovery.resolve import resolve_reply_format
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.normalize import normalize
from server.prompt.messages.probe import probe
from server.prompt.template.chat_template import ChatTemplate
from server.reply.parser import parse_reply
from server.reply.prefix import reply_prefix
from tests.unit.reply.odd_templates import ODD, UNCALLABLE, UNREASONED
from tests.unit.reply.replies import TOOLS
from tests.unit.reply.strange_templates import STYLES, source

USER = Message(role="user", content="How is Oslo?")
TEXT = "It rains <b>& how</b>."
HM = "Let me see."
CALLS = [
    ToolCall(id="a1b2c3d4e", name="get_weather", arguments='{"city": "Oslo", "days": 3}'),
    ToolCall(id="f5g6h7i8j", name="get_time", arguments='{"city": "<b>R&D</b> [x] {y} \\"z\\""}'),
]
SOURCES = {" ".join(filter(None, style)): source(style) for style in STYLES} | ODD
REASONED = {
    name
    for name, text in SOURCES.items()
    if ("reasoning_content" in text or "m.thinking" in text) and name not in UNREASONED
}


@cache
def known(name: str) -> tuple[ChatTemplate, Capabilities, ReplyFormat]:
    template = ChatTemplate(SOURCES[name], bos_token="", eos_token="<eos>")
    able = probe(template)
    found = resolve_reply_format(template, able, None)
    return template, able, found or ReplyFormat(name="content")


def render(name: str, *messages: Message, prompt: bool = False) -> str:
    template, able, _ = known(name)
    chat = normalize(ChatPrompt(messages=list(messages), tools=TOOLS), able)
    return template.render(chat.messages, tools=chat.tools, add_generation_prompt=prompt)


def read(name: str, **parts: object) -> Message:
    """An assistant message, written by the template as a model would, and read back."""
    said = render(name, USER, Message(role="assistant", **parts))  # type: ignore[arg-type]
    prompt, reply_format = render(name, USER, prompt=True), known(name)[2]
    prefix = reply_prefix(prompt, reply_format)
    # What the prompt begins, a past turn may not have.
    head = prompt if said.startswith(prompt) else prompt[: len(prompt) - len(prefix)]
    assert said.startswith(head.rstrip("\n"))
    reply = said[len(head) :]
    if head != prompt:
        prefix = ""
    end = render(name, USER).split("How is Oslo?")[-1]
    reply = reply.removesuffix(end)
    return parse_reply(reply, reply_format, prefix=prefix, tools_active=True, tools=TOOLS)


def test_there_are_enough_of_them() -> None:
    assert len(SOURCES) >= 28


@pytest.mark.parametrize("name", SOURCES)
def test_a_plain_answer_is_content_and_nothing_else(name: str) -> None:
    message = read(name, content=TEXT)
    assert str(message.content).strip() == TEXT
    assert (message.reasoning_content, message.tool_calls) == (None, [])


@pytest.mark.parametrize("name", sorted(REASONED))
def test_reasoning_is_told_from_the_answer(name: str) -> None:
    message = read(name, content=TEXT, reasoning_content=HM)
    assert str(message.content).strip() == TEXT
    assert str(message.reasoning_content).strip() == HM


@pytest.mark.parametrize("name", sorted(UNREASONED))
def test_where_reasoning_cannot_be_told_from_the_answer_nothing_is_lost(name: str) -> None:
    message = read(name, content=TEXT, reasoning_content=HM)
    assert HM in str(message.content)
    assert TEXT in str(message.content)


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in UNCALLABLE])
@pytest.mark.parametrize("calls", [CALLS[:1], CALLS[1:], CALLS], ids=["one", "markup", "two"])
def test_calls_come_back(name: str, calls: list[ToolCall]) -> None:
    assert known(name)[2].calls
    found = read(name, content="", tool_calls=calls).tool_calls
    if not known(name)[1].parallel_calls:
        calls = calls[:1]
    wanted = [(call.name, json.loads(call.arguments)) for call in calls]
    assert [(call.name, json.loads(call.arguments)) for call in found] == wanted


@pytest.mark.parametrize("name", UNCALLABLE)
def test_calls_that_cannot_be_read_back_make_no_format(name: str) -> None:
    assert known(name)[2].calls is None

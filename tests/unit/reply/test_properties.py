"""What holds for every reply in every format, however it is cut into pieces."""

from __future__ import annotations

import json
import re
import string
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core.reply import message_of
from server.core.reply_format import ReplyFormat
from server.core.request import Message
from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.parser import ReplyParser, parse_reply
from server.reply.writer import write_calls
from tests.unit.reply.replies import (
    CALLS,
    FOREIGN_CALLS,
    FORMATS,
    TOOLS,
    parse_in_pieces,
    trigger,
    without_ids,
)

settings.register_profile("replies", max_examples=10, deadline=None)
settings.load_profile("replies")

# In the process tier for its time: random replies in every format.
pytestmark = pytest.mark.process

NAMES = list(builtin_tables())
WORDS = st.text(string.ascii_lowercase + " \n<>|{}[]\"'`:,=()é", max_size=12)


def literals(reply_format: ReplyFormat) -> list[str]:
    """Every text of the format that means something, and pieces of each."""
    calls, channels = reply_format.calls, reply_format.channels
    patterns = [*reply_format.reasoning_edges, *reply_format.framing]
    if calls:
        patterns += [calls.begin, calls.call, calls.separator, calls.end, calls.argument]
    if channels:
        patterns += [*channels.start, channels.message, *channels.end]
        patterns += [text for text in (channels.reasoning, channels.content, channels.call) if text]
    texts = [part for text in patterns for part in re.split(r"\{\w+\}", text) if part.strip()]
    return [*texts, *(text[: len(text) // 2] for text in texts), *(text[1:] for text in texts)]


@st.composite
def raw_replies(draw: st.DrawFn, name: str) -> str:
    """Words, markers, halves of markers and calls in any order."""
    reply_format = builtin_format(name)
    assert reply_format.calls
    whole = st.sampled_from([write_calls(CALLS[:n], reply_format.calls) for n in (1, 2)])
    cut_call = st.tuples(whole, st.integers(0, 80)).map(lambda pair: pair[0][: pair[1]])
    marker = st.sampled_from(literals(reply_format))
    foreign = st.sampled_from([f"\n{call}" for call in FOREIGN_CALLS.values()])
    cut_foreign = st.tuples(foreign, st.integers(1, 80)).map(lambda pair: pair[0][: pair[1]])
    whole = st.one_of(whole, foreign)
    cut_call = st.one_of(cut_call, cut_foreign)
    return "".join(draw(st.lists(st.one_of(WORDS, marker, whole, cut_call), max_size=8)))


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_pieces_make_no_difference(name: str, data: st.DataObject) -> None:
    text = data.draw(raw_replies(name))
    tools_active = data.draw(st.booleans())
    options: dict[str, Any] = {"tools_active": tools_active, "tools": TOOLS}
    places = data.draw(st.lists(st.integers(0, 500), max_size=6))
    whole = without_ids(parse_reply(text, builtin_format(name), **options))
    for pieces in (cut(text, places), list(text)):
        assert without_ids(parse_in_pieces(pieces, builtin_format(name), **options)) == whole


def is_prefix(early: Message, late: Message) -> bool:
    assert not isinstance(early.content, list)
    assert not isinstance(late.content, list)
    return (
        (late.content or "").startswith(early.content or "")
        and (late.reasoning_content or "").startswith(early.reasoning_content or "")
        and len(early.tool_calls) <= len(late.tool_calls)
        and all(
            a.name == b.name and b.arguments.startswith(a.arguments)
            for a, b in zip(early.tool_calls, late.tool_calls, strict=False)
        )
    )


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_every_prefix_gives_a_prefix_of_the_message(name: str, data: st.DataObject) -> None:
    text = data.draw(raw_replies(name))
    whole = parse_reply(text, builtin_format(name), tools_active=True, tools=TOOLS)
    place = data.draw(st.integers(0, len(text)))
    parser = ReplyParser(builtin_format(name), tools_active=True, tools=TOOLS)
    assert is_prefix(message_of(parser.feed(text[:place])), whole)


@pytest.mark.parametrize("reply_format", FORMATS)
@given(calls=st.integers(0, 2), data=st.data())
def test_what_is_written_is_read_back(
    reply_format: ReplyFormat, calls: int, data: st.DataObject
) -> None:
    assert reply_format.calls
    if reply_format.channels or not reply_format.calls.several:
        calls = min(calls, 1)
    texts = st.text(string.ascii_letters + " é\n.,", min_size=1).map(str.strip).filter(bool)
    content, reasoning = data.draw(texts), data.draw(texts)
    city = texts.map(lambda text: text.replace("'", ""))
    arguments = data.draw(
        st.fixed_dictionaries(
            {"city": city}, optional={"days": st.integers(), "exact": st.booleans()}
        )
    )
    calling = [
        msgspec.structs.replace(call, arguments=json.dumps(arguments)) for call in CALLS[:calls]
    ]
    written = write_calls(calling, reply_format.calls) if calling else ""
    if calling and (reply_format.channels or trigger(reply_format) == "{"):
        content = ""  # there a call stands alone
    text = f"{content}\n{written}" if content and written else content + written
    if reply_format.reasoning:
        text = f"{reply_format.reasoning.start}{reasoning}{reply_format.reasoning.end}{text}"
    pieces = cut(text, data.draw(st.lists(st.integers(0, 300), max_size=6)))
    message = parse_in_pieces(pieces, reply_format, tools=TOOLS)
    assert (message.content or "") == content
    assert (message.reasoning_content or "") == (reasoning if reply_format.reasoning else "")
    assert [call.name for call in message.tool_calls] == [call.name for call in calling]
    for call in message.tool_calls:
        assert json.loads(call.arguments) == arguments


@pytest.mark.parametrize("name", [n for n in NAMES if not builtin_format(n).channels])
@given(data=st.data())
def test_no_word_is_lost(name: str, data: st.DataObject) -> None:
    reply_format = builtin_format(name)
    words = [f"word{number}" for number in range(data.draw(st.integers(1, 6)))]
    text = "".join(
        part
        for word in words
        for part in (data.draw(st.sampled_from(literals(reply_format))), f" {word} ")
    )
    message = parse_reply(text, reply_format, tools_active=True)
    found = [message.content or "", message.reasoning_content or ""]
    found += [text for call in message.tool_calls for text in (call.name, call.arguments)]
    assert [word for word in words if not any(word in part for part in found)] == []


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_without_tools_a_call_is_content(name: str, data: st.DataObject) -> None:
    reply_format = builtin_format(name)
    assert reply_format.calls
    text = write_calls(CALLS[:1], reply_format.calls)
    pieces = cut(text, data.draw(st.lists(st.integers(0, 300), max_size=4)))
    message = parse_in_pieces(pieces, reply_format, tools_active=False)
    assert message.tool_calls == []
    assert isinstance(message.content, str)
    for word in ("get_weather", "city", "Oslo", "days"):
        assert word in message.content


@given(text=st.text(), places=st.lists(st.integers(0, 500), max_size=6))
def test_without_a_format_all_is_content_at_once(text: str, places: list[int]) -> None:
    parser = ReplyParser(None, tools_active=True)
    for piece in cut(text, places):
        assert message_of(parser.feed(piece)).content == piece
    assert parser.finish() == []


@pytest.mark.parametrize("name", ["hermes", "qwen3-coder", "gpt-oss", "llama-3", "lfm2", "gemma-4"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "characters"])
def test_time_is_linear_in_the_length(name: str, whole: bool) -> None:
    reply_format = builtin_format(name)
    opening = trigger(reply_format)
    own = (opening, "<", " ", opening + '{"')
    others = ("\n{", "\n[", '\n{"arguments": {}, ', "\n```", "<function=get_weather>")
    for unit in (*own, *others):
        text = unit * ((60_000 if whole else 6_000) // len(unit))
        start = time.process_time()
        parse_in_pieces([text] if whole else text, reply_format, tools=TOOLS)
        assert time.process_time() - start < 3

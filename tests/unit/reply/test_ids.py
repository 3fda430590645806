"""The ids of calls are unique in a whole conversation, in every family."""

from __future__ import annotations

import pytest

from server.core.reply import message_of
from server.core.request import ChatPrompt, GenerationRequest, Message, ToolCall
from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.chat_parser import chat_parser
from server.reply.writer import write_calls
from tests.unit.reply.replies import CALLS, TOOLS


def turn(name: str, text: str, messages: list[Message]) -> list[ToolCall]:
    """The calls of a reply to ``messages``."""
    request = GenerationRequest(prompt=ChatPrompt(messages=messages, tools=TOOLS))
    parser = chat_parser(builtin_format(name), request, prefix="", tools_active=True)
    return message_of([*parser.feed(text), *parser.finish()]).tool_calls


@pytest.mark.parametrize("name", builtin_tables())
def test_a_model_that_repeats_itself_gets_new_ids_in_every_turn(name: str) -> None:
    reply_format = builtin_format(name)
    assert reply_format.calls
    several = reply_format.calls.several and not reply_format.channels
    text = write_calls(CALLS if several else CALLS[:1], reply_format.calls)
    messages = [Message(role="user", content="?")]
    ids: list[str] = []
    for _ in range(4):
        calls = turn(name, text, messages)
        assert len(calls) == (2 if several else 1)
        ids += [call.id for call in calls]
        messages.append(Message(role="assistant", content="", tool_calls=calls))
        messages += [Message(role="tool", content="!", tool_call_id=call.id) for call in calls]
    assert len(set(ids)) == len(ids)


def test_numbered_ids_count_on_through_the_conversation() -> None:
    said = Message(role="assistant", content="", tool_calls=[CALLS[0]])
    calls = builtin_format("kimi-k2").calls
    assert calls
    text = write_calls(CALLS[:1], calls)
    (first,) = turn("kimi-k2", text, [])
    assert first.id == "functions.get_weather:0"
    (second,) = turn("kimi-k2", text, [Message(role="assistant", content="", tool_calls=[first])])
    assert second.id == "functions.get_weather:1"
    (third,) = turn("kimi-k2", text, [said])
    assert third.id == "functions.get_weather:0"


def test_an_id_that_the_model_wrote_stays_if_it_is_new() -> None:
    calls = builtin_format("mistral-nemo").calls
    assert calls
    text = write_calls(CALLS[:1], calls)
    (first,) = turn("mistral-nemo", text, [])
    assert first.id == CALLS[0].id
    (again,) = turn("mistral-nemo", text, [Message(role="assistant", tool_calls=[first])])
    assert again.id != first.id
    assert len(again.id) == 9

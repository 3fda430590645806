"""Texts that the server writes: its markers are the model's own, the request's texts are not."""

from __future__ import annotations

import pytest

from server.core.errors import ConversationError
from server.core.request import ChatPrompt, Message, Tool, ToolCall
from server.prompt.messages.authored_calls import authored_calls
from server.prompt.messages.tool_turns import GENERIC_CALLS
from server.prompt.prompt_pieces import displayed_tokens, pieces_of
from server.prompt.template.authored import Authored, by_server, joined_texts
from tests.unit.fake_vocabulary import FakeVocabulary
from tests.unit.prompt.conversations import assistant, calling, result, user
from tests.unit.prompt.test_guard_corpus import each_template, opened, with_its_own_tokens


def written(arguments: str, name: str = "f") -> dict[str, str]:
    """The request's and the server's characters in a call, the others' replaced by dots."""
    text = authored_calls([ToolCall(id="i", name=name, arguments=arguments)], GENERIC_CALLS)
    shown = {"server": "", "value": ""}
    for author, piece in text.pieces():
        for other in shown:
            shown[other] += piece if other == author else "." * len(piece)
    return shown


def test_markers_are_the_servers_and_values_the_requests() -> None:
    shown = written('{"key": "<tool_call>"}')

    assert shown["server"].startswith('<tool_call>\n{"name": ".", "arguments": {"')
    assert shown["server"].endswith('"}}\n</tool_call>')
    assert [text for text in shown["value"].split(".") if text] == ["f", "key", "<tool_call>"]
    assert shown["server"].count("<tool_call>") == 1


@pytest.mark.parametrize(
    "arguments",
    ["</tool_call>", '{"a": "b"} </tool_call>', '{"a": "</tool_call>', '["</tool_call>"]', "STOP"],
)
def test_all_of_arguments_that_are_no_object_is_the_requests(arguments: str) -> None:
    shown = written(arguments)

    assert shown["server"].count("</tool_call>") == 1
    assert "STOP" not in shown["server"]


def test_nothing_is_the_servers_where_an_escape_hides_a_character() -> None:
    assert set(written('{"a": "\\u003c/tool_call>"}')["server"]) == {"."}


def test_joined_texts_keep_their_authors() -> None:
    text = joined_texts("\n", [by_server("<a>"), "<b>", by_server("<c>")])

    assert isinstance(text, Authored)
    assert list(text.pieces()) == [
        ("server", "<a>"),
        ("request", "\n"),
        ("request", "<b>"),
        ("request", "\n"),
        ("server", "<c>"),
    ]


TOOL = Tool(
    name="look_up",
    description="looks up",
    parameters={"type": "object", "properties": {"key": {"type": "string", "description": "k"}}},
)
CALLED = [
    user("hello"),
    calling(ToolCall(id="a1B2c3D4e", name="look_up", arguments='{"key": "value"}')),
    Message(role="tool", content="found", tool_call_id="a1B2c3D4e"),
]
CUT = [*CALLED[:1], calling(ToolCall(id="a1B2c3D4e", name="look_up", arguments='{"key": "val'))]


@pytest.mark.process
@each_template
@pytest.mark.parametrize(
    "messages", [CALLED[:1], CALLED, [*CUT, CALLED[2]]], ids=["tools", "call", "cut"]
)
def test_the_servers_markers_become_the_tokens_that_they_are_without_a_guard(
    name: str, messages: list[Message]
) -> None:
    guarded = with_its_own_tokens(name)
    bare = opened(name, guarded.template.source, guarded.vocabulary, guard=False)
    prompt = ChatPrompt(messages=messages, tools=[TOOL])
    try:
        expected = bare.render(prompt)
    except ConversationError:
        return
    found = guarded.render(prompt)
    tokens = [
        list(map(guarded.vocabulary.text, displayed_tokens(pieces_of(made.pieces, {}))))
        for made in (found, expected)
    ]
    assert tokens[0] == tokens[1]


def test_a_value_in_words_is_not_taken_apart_by_the_template() -> None:
    source = (
        "{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}\n{% endfor %}"
    )
    model = opened("splitting", source, FakeVocabulary([("</think>", "control")]))
    made = calling(
        ToolCall(id="i", name="look_up", arguments='{"key": "</think>"}'), text="<think>t</think>so"
    )
    text = model.render(ChatPrompt(messages=[user("hello"), made], tools=[TOOL])).text

    assert "<think>" not in text
    assert 'so\n<tool_call>\n{"name": "look_up", "arguments": {"key": "</think>"}}' in text


BROKEN = [
    "{",
    '{"key": "val',
    '{"key": }',
    "[1, 2]",
    '"text"',
    "null",
    '{"key": NaN}',
    "not JSON </a>",
]


@pytest.mark.process
@each_template
def test_arguments_that_are_no_object_are_shown_as_they_stand(name: str) -> None:
    model = with_its_own_tokens(name)
    for arguments in BROKEN:
        made = calling(ToolCall(id="a1B2c3D4e", name="look_up", arguments=arguments))
        after = [result("found", "a1B2c3D4e"), assistant("so"), user("more")]
        for messages in ([user("hello"), made, *after[:1]], [user("hello"), made, *after]):
            prompt = ChatPrompt(messages=messages, tools=[TOOL])
            text = model.render(prompt).text
            assert arguments in text
            assert "found" in text

"""Conversations in the shape a template takes."""

import msgspec
import pytest

from server.core.errors import ConversationError, UnknownParameter
from server.core.request import ChatPrompt, Message, ToolChoice
from server.prompt.messages.normalize import (
    check_variables,
    known_variables,
    normalize,
    template_variables,
)
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.prompt.conversations import (
    OPENAI_ID,
    WEATHER,
    assistant,
    call,
    calling,
    developer,
    parts,
    result,
    system,
    user,
)
from tests.unit.prompt.shaping import NATIVE, shaped, without

CHATML = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_an_empty_conversation_is_refused() -> None:
    with pytest.raises(ConversationError, match="messages is empty"):
        normalize(ChatPrompt(messages=[]), NATIVE)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([Message(role="user")], r"messages\[0\] has no content"),
        ([user("a"), Message(role="system")], r"messages\[1\] has no content"),
        ([user("a"), Message(role="assistant")], r"messages\[1\] has no content"),
        ([user("a"), result("b")], r"messages\[1\] is a tool result, but no tool call"),
        ([result("b")], r"messages\[0\] is a tool result, but no tool call"),
        (
            [user("a"), calling(call("f", "x")), result("b", "y")],
            r"messages\[2\] answers the tool call 'y', .*waiting for a result are 'x'",
        ),
        (
            [user("a"), calling(call("f", "x")), result("b", "x"), result("c", "x")],
            r"messages\[3\] is a tool result, but no tool call",
        ),
        (
            [user("a"), calling(call("f", "x")), user("b"), result("c", "x"), result("d", "x")],
            r"messages\[4\] is a tool result, but no tool call",
        ),
        (
            [Message(role="user", content="a", tool_calls=[call("f")])],
            r"messages\[0\] has tool_calls, but the role 'user'",
        ),
    ],
)
def test_an_invalid_conversation_is_refused_naming_the_message(
    messages: list[Message], problem: str
) -> None:
    with pytest.raises(ConversationError, match=problem) as caught:
        normalize(ChatPrompt(messages=messages), NATIVE)
    assert caught.value.at[0] == "messages"


@pytest.mark.parametrize("last", [user("b"), calling(call("f"))])
def test_only_an_assistant_message_with_text_can_be_continued(last: Message) -> None:
    prompt = ChatPrompt(messages=[user("a"), last], continue_final_message=True)
    with pytest.raises(ConversationError, match=r"messages\[1\] cannot be continued"):
        normalize(prompt, NATIVE)


def test_a_conversation_the_template_expresses_stays_as_it_is() -> None:
    messages = shaped(
        NATIVE,
        system("s"),
        user("a"),
        calling(call("f"), text="t", reasoning="r"),
        result("b"),
        assistant("c"),
    )
    assert messages == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": "t",
            "reasoning_content": "r",
            "tool_calls": [
                {
                    "id": OPENAI_ID,
                    "type": "function",
                    "function": {"name": "f", "arguments": {"argkey": "argvalue"}},
                }
            ],
        },
        {"role": "tool", "tool_call_id": OPENAI_ID, "content": "b"},
        {"role": "assistant", "content": "c"},
    ]


@pytest.mark.parametrize("between", [user("wait"), Message(role="assistant", content="Also.")])
def test_a_result_that_comes_late_stands_with_its_call(between: Message) -> None:
    asks = calling(call("f", "x"), call("g", "y"))
    messages = [user("a"), asks, result("1", "x"), between, system("s"), result("2", "y")]
    chat = normalize(ChatPrompt(messages=messages), NATIVE)
    assert chat.sources == [0, 1, 2, 5, 3, 4]
    again = [user("a"), calling(call("f", "x")), between, calling(call("f", "x")), result("1", "x")]
    # Of two open calls of one id it is the later one's.
    assert normalize(ChatPrompt(messages=again), NATIVE).sources == [0, 1, 2, 3, 4]


def test_developer_becomes_system_where_the_template_has_no_such_role() -> None:
    assert shaped(NATIVE, developer("d"), user("a"))[0] == {"role": "system", "content": "d"}
    native = msgspec.structs.replace(NATIVE, developer_role=True)
    assert shaped(native, developer("d"), user("a"))[0] == {"role": "developer", "content": "d"}


def test_without_a_system_role_its_text_precedes_the_first_user_text() -> None:
    messages = shaped(without("system_role"), system("s"), assistant("hi"), user("a"), user("b"))
    assert [message["content"] for message in messages] == ["hi", "s\n\na", "b"]


def test_several_systems_are_joined_by_a_blank_line_at_the_beginning() -> None:
    conversation = (system("s"), system("t"), user("a"))
    messages = shaped(without("several_systems"), *conversation)
    assert [message["content"] for message in messages] == ["s\n\nt", "a"]
    assert len(shaped(NATIVE, *conversation)) == 3


def test_a_system_text_shown_only_with_the_last_user_message_moves_into_the_first() -> None:
    capabilities = without("lasting_system")
    assert shaped(capabilities, system("s"), user("a"))[0]["role"] == "system"
    assert shaped(capabilities, system("s"), user("a"), assistant("b"))[0] == {
        "role": "user",
        "content": "s\n\na",
    }


def test_parts_are_joined_by_a_newline_unless_the_template_takes_them() -> None:
    assert shaped(NATIVE, parts("user", "a", "b"))[0]["content"] == "a\nb"
    native = msgspec.structs.replace(NATIVE, content_parts=True)
    assert shaped(native, parts("user", "a", "b"))[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]


def test_a_template_for_parts_only_gets_parts() -> None:
    assert shaped(without("string_content"), user("a"))[0]["content"] == [
        {"type": "text", "text": "a"}
    ]


def test_turns_are_merged_or_separated_where_roles_must_alternate() -> None:
    strict = without(
        "consecutive_users",
        "consecutive_assistants",
        "assistant_first",
        "user_after_results",
        "text_before_calls",
        "content_with_calls",
    )
    messages = shaped(
        strict,
        assistant("a"),
        assistant("b"),
        user("c"),
        user("d"),
        calling(call("f"), text="e"),
        result("g"),
        user("h"),
    )
    assert [(message["role"], message["content"]) for message in messages] == [
        ("user", ""),
        ("assistant", "a\n\nb"),
        ("user", "c\n\nd"),
        ("assistant", "e"),
        ("user", ""),
        ("assistant", ""),
        ("tool", "g"),
        ("assistant", ""),
        ("user", "h"),
    ]


def test_an_author_is_named_in_the_text_where_the_template_ignores_names() -> None:
    assert shaped(NATIVE, user("a", name="Ada"))[0] == {"role": "user", "content": "Ada: a"}
    native = msgspec.structs.replace(NATIVE, author_names=True)
    assert shaped(native, user("a", name="Ada"))[0] == {
        "role": "user",
        "content": "a",
        "name": "Ada",
    }


def test_tool_choice_none_shows_no_tools() -> None:
    choice = ToolChoice(mode="none")
    prompt = ChatPrompt(messages=[user("a")], tools=[WEATHER], tool_choice=choice)
    assert normalize(prompt, NATIVE).tools is None


def test_sources_name_the_request_s_messages() -> None:
    strict = without("late_system", "several_systems", "content_with_calls", "assistant_first")
    prompt = ChatPrompt(
        messages=[assistant("a"), user("b"), system("c"), calling(call("f"), text="d"), result("e")]
    )
    chat = normalize(prompt, strict)
    assert chat.sources == [-1, 0, 1, 2, 3, 3, 4]


def test_variables_reach_the_template_only_if_it_asks_for_them() -> None:
    asking = ChatTemplate("{{ enable_thinking }}{{ persona }}{{ messages }}{{ bos_token }}")
    assert template_variables({"enable_thinking": False, "persona": "x"}, asking) == {
        "enable_thinking": False,
        "persona": "x",
    }
    for name in ("messages", "bos_token", "range", "other"):
        assert template_variables({name: 1, "persona": "x"}, asking) == {"persona": "x"}
        with pytest.raises(UnknownParameter, match=f"no variable '{name}'") as caught:
            check_variables({name: 1}, asking)
        assert caught.value.at == ("template_kwargs", name)


def test_thinking_switches_are_left_out_where_the_template_has_none() -> None:
    switches = {"enable_thinking": True, "reasoning_effort": "low"}
    plain, granite = ChatTemplate(CHATML), ChatTemplate("{{ thinking }}")
    assert template_variables(switches, plain) == {}
    assert known_variables(switches, plain) == frozenset()
    assert template_variables(switches, granite) == {"thinking": True}
    assert known_variables(switches, granite) == {"enable_thinking"}

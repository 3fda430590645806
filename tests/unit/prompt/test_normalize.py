import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from server.core.errors import ConversationError
from server.core.reply_format import Calls
from server.core.request import ChatPrompt, Message, ToolCall, ToolChoice
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.completeness import check_complete
from server.prompt.messages.normalize import known_variables, normalize, template_variables
from server.prompt.messages.probe import probe
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.prompt.conversations import (
    BARE,
    CONVERSATIONS,
    OPENAI_ID,
    WEATHER,
    assistant,
    call,
    calling,
    conversations,
    developer,
    needles,
    parts,
    result,
    system,
    user,
)
from tests.unit.prompt.corpus import capabilities, each_template, template

CHATML = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_VERDICTS: dict[str, Any] = dict.fromkeys(Capabilities.__struct_fields__, True)
_VERDICTS |= {"developer_role": False, "content_parts": False, "author_names": False}
NATIVE = Capabilities(**_VERDICTS)


def without(*names: str) -> Capabilities:
    return msgspec.structs.replace(NATIVE, **dict.fromkeys(names, False))


def shaped(capabilities: Capabilities, *messages: Message) -> list[dict[str, Any]]:
    chat = normalize(ChatPrompt(messages=list(messages)), capabilities)
    assert len(chat.sources) == len(chat.messages)
    return chat.messages


REFUSED = {("NVIDIA-Nemotron-Nano-v2", "system alone")}
"""All the corpus cannot express: one template fails without a user message."""


@each_template
@pytest.mark.parametrize("generation", [True, False])
def test_every_piece_of_every_message_reaches_the_prompt_or_is_refused(
    name: str, generation: bool
) -> None:
    refused = set()
    for title, (messages, tools) in CONVERSATIONS.items():
        prompt = ChatPrompt(messages=messages, tools=tools, add_generation_prompt=generation)
        try:
            chat = normalize(prompt, capabilities(name))
            check_complete(chat, template(name), add_generation_prompt=generation)
            text = template(name).render(
                chat.messages, tools=chat.tools, add_generation_prompt=generation
            )
        except ConversationError:
            refused.add((name, title))
        else:
            missing = {needle for needle in needles(messages, tools) if needle not in text}
            assert not missing, title
    assert refused == {case for case in REFUSED if case[0] == name}


@each_template
@settings(max_examples=15, deadline=None)
@given(messages=conversations())
def test_any_conversation_with_a_user_reaches_the_prompt_whole(
    name: str, messages: list[Message]
) -> None:
    chat = normalize(ChatPrompt(messages=messages), capabilities(name))
    check_complete(chat, template(name))
    text = template(name).render(chat.messages)
    written = "".join(str(message.content) for message in messages) + "".join(
        made.name + made.arguments for message in messages for made in message.tool_calls
    )
    assert set(re.findall(r"needle\d+q", written)) <= set(re.findall(r"needle\d+q", text))


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
            [user("a"), calling(call("f", "x")), user("b"), result("c", "x")],
            r"messages\[3\] is a tool result, but no tool call",
        ),
        (
            [Message(role="user", content="a", tool_calls=[call("f")])],
            r"messages\[0\] has tool_calls, but the role 'user'",
        ),
        (
            [user("a"), calling(call("f", arguments="{broken"))],
            r"messages\[1\]\.tool_calls\[0\]\.arguments is not JSON",
        ),
        (
            [user("a"), calling(call("f", arguments="[1]"))],
            r"messages\[1\]\.tool_calls\[0\]\.arguments is not a JSON object",
        ),
        (
            [user("a"), calling(call("f", arguments='{"a": NaN}'))],
            r"NaN is not a JSON value",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_with_the_message_it_is_about(
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


def test_developer_becomes_system_where_the_template_has_no_such_role() -> None:
    assert shaped(NATIVE, developer("d"), user("a"))[0] == {"role": "system", "content": "d"}
    native = msgspec.structs.replace(NATIVE, developer_role=True)
    assert shaped(native, developer("d"), user("a"))[0] == {"role": "developer", "content": "d"}


def test_without_a_system_role_its_text_precedes_the_first_user_text() -> None:
    messages = shaped(without("system_role"), system("s"), assistant("hi"), user("a"), user("b"))
    assert [message["content"] for message in messages] == ["hi", "s\n\na", "b"]


def test_several_systems_are_joined_by_a_blank_line_at_the_beginning() -> None:
    conversation = (system("s"), user("a"), system("t"), user("b"))
    for missing in ("late_system", "several_systems"):
        messages = shaped(without(missing), *conversation)
        assert [message["content"] for message in messages] == ["s\n\nt", "a", "b"]
    assert len(shaped(NATIVE, *conversation)) == 4


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


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ((), {"content": ""}),
        (("empty_content_with_calls",), {"content": None}),
        (("empty_content_with_calls", "null_content_with_calls"), {}),
    ],
)
def test_content_beside_calls_is_absent_the_way_the_template_takes_it(
    missing: tuple[str, ...], message: dict[str, str | None]
) -> None:
    made = shaped(without(*missing), user("a"), calling(call("f")))[1]
    assert {name: made[name] for name in ("content",) if name in made} == message


def test_arguments_stay_text_for_templates_that_need_text() -> None:
    made = shaped(without("object_arguments"), user("a"), calling(call("f", arguments='{"b":1}')))
    assert made[1]["tool_calls"][0]["function"]["arguments"] == '{"b":1}'


def test_empty_arguments_are_an_empty_object() -> None:
    made = shaped(NATIVE, user("a"), calling(call("f", arguments="")))
    assert made[1]["tool_calls"][0]["function"]["arguments"] == {}


def test_calls_and_results_are_words_where_the_template_drops_them() -> None:
    messages = shaped(
        without("tool_calls", "tool_results"),
        user("a"),
        calling(call("f", arguments='{"b": "ü"}'), text="t"),
        result('say "hi"'),
    )
    assert messages == [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": 't\n<tool_call>\n{"name": "f", "arguments": {"b": "ü"}}\n</tool_call>',
        },
        {
            "role": "user",
            "content": "<tool_response>\n"
            '{"name": "f", "content": "say \\"hi\\""}\n</tool_response>',
        },
    ]


def test_parallel_calls_become_single_calls_each_with_its_result() -> None:
    messages = shaped(
        without("parallel_calls"),
        user("a"),
        calling(call("f", "1"), call("g", "2"), text="t"),
        result("second", "2"),
        result("first", "1"),
    )
    assert [message["content"] for message in messages] == ["a", "t", "first", "", "second"]
    names = [made["function"]["name"] for m in messages for made in m.get("tool_calls", [])]
    assert names == ["f", "g"]


def test_results_stand_in_the_order_of_their_calls() -> None:
    messages = shaped(
        NATIVE,
        user("a"),
        calling(call("f", "1"), call("g", "2")),
        result("second", "2"),
        result("first", "1"),
    )
    assert [message["content"] for message in messages[2:]] == ["first", "second"]


def test_results_without_ids_answer_the_calls_in_order() -> None:
    messages = shaped(
        NATIVE,
        user("a"),
        Message(
            role="assistant",
            tool_calls=[
                ToolCall(id="", name="f", arguments="{}"),
                ToolCall(id="", name="g", arguments="{}"),
            ],
        ),
        Message(role="tool", content="first"),
        Message(role="tool", content="second"),
    )
    assert [message["content"] for message in messages[2:]] == ["first", "second"]
    assert "id" not in messages[1]["tool_calls"][0]
    assert "tool_call_id" not in messages[2]


def test_text_beside_calls_is_a_turn_of_its_own_where_the_template_drops_it() -> None:
    made = shaped(without("content_with_calls"), user("a"), calling(call("f"), text="t"))
    assert made[1] == {"role": "assistant", "content": "t"}
    assert made[2]["content"] == ""
    assert made[2]["tool_calls"]


def test_ids_are_shortened_alike_in_call_and_result() -> None:
    messages = shaped(without("free_call_ids"), user("a"), calling(call("f")), result("b"))
    identity = messages[1]["tool_calls"][0]["id"]
    assert len(identity) == 9
    assert identity.isalnum()
    assert messages[2]["tool_call_id"] == identity
    kept = shaped(
        without("free_call_ids"), user("a"), calling(call("f", "abcDEF123")), result("b", "")
    )
    assert kept[1]["tool_calls"][0]["id"] == "abcDEF123"


def test_ids_name_the_function_where_the_template_reads_the_name_there() -> None:
    messages = shaped(
        without("free_call_ids", "short_call_ids"),
        user("a"),
        calling(call("f", "1")),
        result("b", "1"),
        calling(call("g", "2")),
        result("c", "2"),
    )
    assert [message.get("tool_call_id") for message in messages if message["role"] == "tool"] == [
        "functions.f:0",
        "functions.g:1",
    ]


def test_results_are_named_where_the_template_needs_it() -> None:
    assert "name" not in shaped(NATIVE, user("a"), calling(call("f")), result("b"))[2]
    named = shaped(without("unnamed_results"), user("a"), calling(call("f")), result("b"))
    assert named[2]["name"] == "f"


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


def test_tools_are_described_in_the_system_text_where_the_template_ignores_them() -> None:
    prompt = ChatPrompt(messages=[system("s"), user("a")], tools=[WEATHER, BARE])
    chat = normalize(prompt, without("tools"))
    assert chat.tools is None
    text = chat.messages[0]["content"]
    assert text.startswith("s\n\n")
    assert text.endswith(
        '<tool_call>\n{"name": "NAME", "arguments": {"KEY": "VALUE"}}\n</tool_call>'
    )
    schemas = text.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line)["function"]["name"] for line in schemas] == [WEATHER.name, BARE.name]


def test_described_tools_are_called_in_the_model_s_own_syntax() -> None:
    syntax = Calls(call="call:{name}({arguments})", begin="<calls>", end="</calls>")
    prompt = ChatPrompt(messages=[user("a")], tools=[BARE])
    chat = normalize(prompt, without("tools"), syntax)
    assert chat.messages[0]["content"].endswith('<calls>call:NAME({"KEY": "VALUE"})</calls>')


def test_tools_lack_nothing_a_template_insists_on() -> None:
    prompt = ChatPrompt(messages=[user("a")], tools=[BARE])
    bare, full = (normalize(prompt, it).tools for it in (NATIVE, without("bare_tools")))
    assert bare == [{"type": "function", "function": {"name": "toolbare"}}]
    assert full == [
        {
            "type": "function",
            "function": {
                "name": "toolbare",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]


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
    assert chat.sources == [2, -1, 0, 1, 3, 3, 4]


def test_a_drop_that_no_probe_foresaw_is_an_error_about_that_message() -> None:
    forgetful = ChatTemplate("{% for m in messages[-6:] %}{{ m.role }}:{{ m.content }}{% endfor %}")
    turns = [turn for _ in range(4) for turn in (user("a"), assistant("b"))]
    chat = normalize(ChatPrompt(messages=[*turns, user("c")]), probe(forgetful))
    with pytest.raises(
        ConversationError, match=r"messages\[0\] cannot be expressed here"
    ) as caught:
        check_complete(chat, forgetful)
    assert caught.value.at == ("messages", 0)


def test_variables_reach_the_template_only_if_it_asks_for_them() -> None:
    asking = ChatTemplate("{{ enable_thinking }}{{ persona }}{{ messages }}{{ bos_token }}")
    assert template_variables({"enable_thinking": False, "persona": "x"}, asking) == {
        "enable_thinking": False,
        "persona": "x",
    }
    for name in ("messages", "bos_token", "range", "other"):
        with pytest.raises(ConversationError, match=f"no variable '{name}'") as caught:
            template_variables({name: 1}, asking)
        assert caught.value.at == ("template_kwargs", name)


def test_thinking_switches_are_left_out_where_the_template_has_none() -> None:
    switches = {"enable_thinking": True, "reasoning_effort": "low"}
    plain, granite = ChatTemplate(CHATML), ChatTemplate("{{ thinking }}")
    assert template_variables(switches, plain) == {}
    assert known_variables(switches, plain) == frozenset()
    assert template_variables(switches, granite) == {"thinking": True}
    assert known_variables(switches, granite) == {"enable_thinking"}

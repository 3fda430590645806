"""System text after other turns: at the front, or in its place."""

from __future__ import annotations

import pytest

from server.core.request import ChatPrompt, Message
from server.prompt.known_template import KnownTemplate
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.normalize import normalize
from tests.unit.prompt.conversations import assistant, system, user
from tests.unit.prompt.corpus import TEMPLATES, template
from tests.unit.prompt.shaping import NATIVE, without

LATE = [system("A"), user("b"), system("C"), assistant("d"), user("e"), system("F")]


def in_place(capabilities: Capabilities, *messages: Message) -> list[tuple[str, object]]:
    chat = normalize(ChatPrompt(messages=list(messages)), capabilities)
    assert len(chat.sources) == len(chat.messages)
    return [(message["role"], message["content"]) for message in chat.messages]


def test_it_is_native_where_the_template_takes_it() -> None:
    assert in_place(NATIVE, *LATE) == [(message.role, message.content) for message in LATE]


def test_it_is_in_words_where_the_template_does_not() -> None:
    assert in_place(without("late_system", "several_systems"), *LATE) == [
        ("system", "A"),
        ("user", "b"),
        ("user", "<system>\nC\n</system>"),
        ("assistant", "d"),
        ("user", "e"),
        ("user", "<system>\nF\n</system>"),
    ]


def test_it_joins_its_neighbour_where_turns_alternate() -> None:
    able = without("late_system", "several_systems", "system_role", "consecutive_users")
    assert in_place(able, *LATE) == [
        ("user", "A\n\nb\n\n<system>\nC\n</system>"),
        ("assistant", "d"),
        ("user", "e\n\n<system>\nF\n</system>"),
    ]


def test_leading_system_text_is_one_where_the_template_takes_one() -> None:
    assert in_place(
        without("several_systems", "late_system"), system("A"), system("B"), user("c")
    ) == [
        ("system", "A\n\nB"),
        ("user", "c"),
    ]


def test_a_conversation_of_system_text_alone_stays_one() -> None:
    assert in_place(without("several_systems"), system("A"), system("B")) == [("system", "A\n\nB")]


# It puts all system text, leading text too, before the last turn of the user, as it was trained.
MOVING = {"mistralai-Mistral-Nemo-Instruct-2407"}


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - MOVING))
def test_with_every_template_what_comes_before_it_is_the_same_prefix(name: str) -> None:
    known = KnownTemplate.learn(template(name), None)

    def text(*messages: Message) -> str:
        return known.text(ChatPrompt(messages=list(messages)))

    begun = [system("Alpha"), user("Beta")]
    without_it = text(*begun, user("Gamma"))
    with_it = text(*begun, assistant("Delta"), user("Epsilon"), system("Zeta"))
    end = without_it.index("Beta") + len("Beta")
    assert "Alpha" in with_it[:end]
    assert with_it[:end] == without_it[:end]
    assert "Zeta" in with_it[end:]

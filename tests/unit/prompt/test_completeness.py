"""All of a conversation reaches the prompt, or it is refused."""

import re

import pytest
from hypothesis import given, settings

from server.core.errors import ConversationError
from server.core.request import ChatPrompt, Message
from server.prompt.messages.completeness import check_complete
from server.prompt.messages.normalize import normalize
from server.prompt.messages.probe import probe
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.prompt.conversations import (
    CONVERSATIONS,
    assistant,
    conversations,
    needles,
    user,
)
from tests.unit.prompt.corpus import capabilities, each_template, template

# In the process tier for its time: every conversation with every template of the corpus.
pytestmark = pytest.mark.process

REFUSED = {("NVIDIA-Nemotron-Nano-v2", "system alone")}
"""The only conversation the corpus cannot express: one template fails without a user message."""


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
def test_any_conversation_with_a_user_reaches_the_prompt_completely(
    name: str, messages: list[Message]
) -> None:
    chat = normalize(ChatPrompt(messages=messages), capabilities(name))
    check_complete(chat, template(name))
    text = template(name).render(chat.messages)
    written = "".join(str(message.content) for message in messages) + "".join(
        made.name + made.arguments for message in messages for made in message.tool_calls
    )
    assert set(re.findall(r"needle\d+q", written)) <= set(re.findall(r"needle\d+q", text))


def test_an_omission_that_no_probe_found_is_an_error_about_that_message() -> None:
    forgetful = ChatTemplate("{% for m in messages[-6:] %}{{ m.role }}:{{ m.content }}{% endfor %}")
    turns = [turn for _ in range(4) for turn in (user("a"), assistant("b"))]
    chat = normalize(ChatPrompt(messages=[*turns, user("c")]), probe(forgetful))
    with pytest.raises(
        ConversationError, match=r"messages\[0\] cannot be expressed here"
    ) as caught:
        check_complete(chat, forgetful)
    assert caught.value.at == ("messages", 0)

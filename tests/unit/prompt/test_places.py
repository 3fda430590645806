"""An error names the place in the request, although the template gets other messages."""

from __future__ import annotations

import pytest

from server.core.errors import ConversationError
from server.core.request import ChatPrompt, Tool
from server.prompt.known_template import KnownTemplate
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.completeness import check_complete
from server.prompt.messages.normalize import normalize
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.prompt.conversations import assistant, system, user

STRICT = (
    "{% for m in messages %}"
    "{% if m.role not in ['user', 'assistant'] or (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant in turn') }}{% endif %}"
    "<{{ m.role }}>{{ m.content | replace('?', '') }}{% endfor %}"
)
HERMES = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls %}\n<tool_call>\n"
    "{{ c.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_message_that_cannot_be_continued_is_the_request_s() -> None:
    known = KnownTemplate.learn(ChatTemplate(STRICT), None)
    messages = [system("a"), user("b"), user("c"), assistant("why? because")]
    prompt = ChatPrompt(messages=messages, add_generation_prompt=False, continue_final_message=True)

    with pytest.raises(ConversationError, match=r"messages\[3\] cannot be continued") as caught:
        known.text(prompt)

    assert caught.value.at == ("messages", 3)


def test_tools_in_words_that_the_template_leaves_out_are_the_tools() -> None:
    forgetful = ChatTemplate(
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    able = Capabilities(string_content=True, system_role=True)
    chat = normalize(ChatPrompt(messages=[user("a")], tools=[Tool(name="f")]), able)

    with pytest.raises(ConversationError, match="tools cannot be expressed here") as caught:
        check_complete(chat, forgetful)

    assert caught.value.at == ("tools",)

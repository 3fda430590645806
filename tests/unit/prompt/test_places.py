"""An error names the place in the request, although the template gets other messages."""

from __future__ import annotations

from typing import Any

import pytest

from server.core.errors import ConversationError, InvalidRequest
from server.core.request import ChatPrompt, Tool
from server.prompt.guard.mask import Mask
from server.prompt.known_template import KnownTemplate
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.completeness import check_complete
from server.prompt.messages.normalize import normalize
from server.prompt.model_template import ModelTemplate
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.fake_vocabulary import FakeVocabulary
from tests.unit.prompt.conversations import assistant, call, calling, result, system, user

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


def test_a_tool_s_name_that_is_refused_has_the_tool_s_index() -> None:
    tools: list[dict[str, Any]] = [
        {"type": "function", "function": {"name": name}} for name in ("f", "g h")
    ]

    with pytest.raises(InvalidRequest, match="tool name 'g h'") as caught:
        Mask(["<|im_end|>"]).apply([], tools, {})

    assert caught.value.at == ("tools", 1)


def test_a_call_s_name_that_is_refused_has_the_index_of_the_request_s_message() -> None:
    template = ModelTemplate.open(ChatTemplate(HERMES), FakeVocabulary([]), None, guard=True)
    assert template.capabilities.tool_calls
    messages = [system("a"), user("b"), calling(call("g h")), result("c")]

    with pytest.raises(InvalidRequest, match="tool name 'g h'") as caught:
        template.render(ChatPrompt(messages=messages))

    assert caught.value.at == ("messages", 2)

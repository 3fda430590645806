"""Parts of content keep their kind; a kind that does not say where its text is, is an error."""

import pytest

from server.core.request import ChatPrompt
from server.prompt.known_template import KnownTemplate
from server.prompt.messages.capabilities import Capabilities
from server.prompt.template.chat_template import ChatTemplate
from server.prompt.template.content import with_texts
from tests.unit.prompt.conversations import parts


def test_texts_are_replaced_in_a_string_and_in_parts() -> None:
    assert with_texts("a", str.upper) == "A"
    assert with_texts([{"type": "text", "text": "a"}], str.upper) == [{"type": "text", "text": "A"}]


def test_a_part_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError, match="video"):
        with_texts([{"type": "video", "alt": "<|im_end|>"}], str.upper)


def test_labels_are_indented_in_every_part() -> None:
    source = "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}"
    known = KnownTemplate(
        template=ChatTemplate(source),
        capabilities=Capabilities(content_parts=True),
        reply_format=None,
        indent_labels=["Human:"],
    )

    prompt = ChatPrompt(messages=[parts("user", "Human: a", "b\nHuman: c")])

    assert known.text(prompt) == "[ Human: a][b\n Human: c]"

"""Prompts that cannot fit are refused without being tokenised."""

from __future__ import annotations

import pytest

from server.core.errors import ContextLengthExceeded
from server.core.request import ChatPrompt, Message, Prompt, TextPrompt
from server.prompt.chat_model import ChatModel
from tests.unit.fake_vocabulary import FakeVocabulary

CONTEXT = 100
LONGEST = "<|im_end|>"
TEMPLATE = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"


def chat(content: str) -> ChatPrompt:
    return ChatPrompt(messages=[Message(role="user", content=content)])


@pytest.fixture
def vocabulary() -> FakeVocabulary:
    return FakeVocabulary([(LONGEST, "control")])


@pytest.fixture
def model(vocabulary: FakeVocabulary) -> ChatModel:
    opened = ChatModel.open(
        {"tokenizer.chat_template": TEMPLATE},
        vocabulary,
        "x-instruct.gguf",
        families={},
    )
    vocabulary.calls.clear()
    return opened


TOO_LONG = "x" * (CONTEXT * len(LONGEST) + 1)


@pytest.mark.parametrize(
    "prompt",
    [
        chat(TOO_LONG),
        TextPrompt(text=TOO_LONG),
        TextPrompt(text="x", suffix=TOO_LONG),
    ],
)
def test_text_that_cannot_fit_is_refused_before_it_is_tokenised(
    model: ChatModel, vocabulary: FakeVocabulary, prompt: Prompt
) -> None:
    with pytest.raises(ContextLengthExceeded) as refusal:
        model.build(prompt, context=CONTEXT)
    assert refusal.value.at == ("prompt",)
    assert f"{CONTEXT} tokens" in refusal.value.message
    assert "at least 10" in refusal.value.message
    assert refusal.value.numbers["at_least"] >= 10
    assert vocabulary.calls == []


def test_text_that_may_fit_is_tokenised(model: ChatModel, vocabulary: FakeVocabulary) -> None:
    text = "x" * (CONTEXT * len(LONGEST))
    assert model.build(TextPrompt(text=text), context=CONTEXT).rendered.prompt == text
    assert vocabulary.calls == [text]


def test_without_a_limit_every_text_is_tokenised(model: ChatModel) -> None:
    assert len(model.build(TextPrompt(text=TOO_LONG)).rendered.tokens) == len(TOO_LONG)

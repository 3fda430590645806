"""Calls come back as they were written, whatever published templates make of them."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from server.core.request import CacheScope, ChatPrompt, Message, Tool, ToolCall
from server.core.resources import templates_directory
from server.prompt.chat_model import ChatModel
from server.prompt.families.definitions import load_families
from server.prompt.turn_reader import TurnReader
from server.prompt.written_answers import WrittenAnswers
from tests.unit.fake_vocabulary import FakeVocabulary
from tests.unit.prompt.corpus import TEMPLATES

FAMILIES = load_families([templates_directory()])
SCOPE = CacheScope()
TOKEN_LIKE = re.compile(r"<[|｜]?[^<>\s'\"{}]+[|｜]?>|\[/?[A-Z_]{3,}\]")
TOOL = Tool(
    name="look_up",
    parameters={
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "lines": {"type": "integer"},
            "more": {"type": "object"},
        },
    },
)
MORE = {"y": [1, 2], "x": True}
ARGUMENTS: dict[str, Any] = {"path": "a.py", "lines": 3, "more": MORE}
QUESTION = Message(role="user", content="Hi")

# Templates, and the tokens that end turns in them.
ENDS = {
    "GLM-4.6": "<|observation|>",
    "HuggingFaceTB-SmolLM3-3B": "<|im_end|>",
    "LFM2-8B-A1B": "<|im_end|>",
    "Qwen-Qwen3-0.6B": "<|im_end|>",
    "Qwen3-Coder": "<|im_end|>",
    "deepseek-ai-DeepSeek-V3.1": "<｜end▁of▁sentence｜>",
    "google-gemma-2-2b-it": "<end_of_turn>",
    "ibm-granite-granite-4.0": "<|end_of_text|>",
    "meta-llama-Llama-3.1-8B-Instruct": "<|eot_id|>",
    "moonshotai-Kimi-K2": "<|im_end|>",
    "openai-gpt-oss-120b": "<|call|>",
    "unsloth-mistral-Devstral-Small-2507": "</s>",
}
each_template = pytest.mark.parametrize(
    "name",
    list(ENDS)
    if TEMPLATES
    else [pytest.param("", marks=pytest.mark.skip(reason="needs ../shared/corpus/templates"))],
)


class Conversation:
    """A question and its answer by a call, which comes back as ``arguments`` with its result."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        source = TEMPLATES[name].read_text(encoding="utf-8")
        end = ENDS[name]
        texts = sorted({*TOKEN_LIKE.findall(source), "<bos>", "<think>", "</think>", end})
        self.vocabulary = FakeVocabulary(
            [(text, "control") for text in texts], bos="<bos>", eos=end
        )
        self.model = ChatModel.open(
            {"tokenizer.chat_template": source},
            self.vocabulary,
            f"{name}-instruct.gguf",
            families=FAMILIES,
            family=None,
            guard=True,
        )
        call = ToolCall(id="abcdefghi", name="look_up", arguments=json.dumps(arguments))
        asked = self.model.build(ChatPrompt(messages=[QUESTION], tools=[TOOL]))
        self.reply_prefix = asked.reply_prefix
        self.asked = asked.rendered.tokens
        returning = [
            QUESTION,
            Message(role="assistant", tool_calls=[call]),
            Message(role="tool", content="a result", tool_call_id=call.id),
        ]
        self.returned = self.model.build(ChatPrompt(messages=returning, tools=[TOOL]))
        self.end = self.vocabulary.id(end)

    def written(self) -> list[int]:
        """The call as a model may write it: other spaces, and where all is JSON other order."""
        text = self.returned.rendered.prompt
        for value, other in ((ARGUMENTS, dict(reversed(ARGUMENTS.items()))), (MORE, MORE)):
            text = text.replace(json.dumps(value), json.dumps(other, separators=(" ,", ":")))
        tokens = self.vocabulary.tokenize(text, parse_special=True)
        answer = tokens[len(self.asked) :]
        return answer[: answer.index(self.end)]

    def put_back(self, written: list[int]) -> list[int]:
        """The tokens of the returned prompt, after the model has written ``written``."""
        reader = TurnReader(self.vocabulary, self.model.reply_format)
        answers = WrittenAnswers(self.vocabulary, most_tokens=10_000)
        reading = reader.reading([TOOL], tolerant=True)
        tokens = np.array([*self.asked, *written], dtype=np.int32)
        answers.remember(SCOPE, reading, self.reply_prefix, tokens, len(self.asked))
        reading = reader.reading([TOOL], tolerant=False)
        return answers.put_back(SCOPE, reading, self.returned.rendered.tokens)


@each_template
def test_a_call_comes_back_as_it_was_written(name: str) -> None:
    conversation = Conversation(name, ARGUMENTS)
    written = conversation.written()
    returned = conversation.returned.rendered.tokens
    assert returned[: len(conversation.asked)] == conversation.asked
    assert returned[len(conversation.asked) :][: len(written)] != written
    rest = returned[returned.index(conversation.end, len(conversation.asked)) :]
    assert conversation.put_back(written) == [*conversation.asked, *written, *rest]


@each_template
def test_a_changed_call_is_written_by_the_template(name: str) -> None:
    written = Conversation(name, ARGUMENTS).written()
    changed = Conversation(name, {**ARGUMENTS, "lines": 4})
    prompt = changed.vocabulary.texts(changed.put_back(written))
    assert prompt == changed.vocabulary.texts(changed.returned.rendered.tokens)

"""Tokens that a model file does not name: llama.cpp's default ids stand for words there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from server.core.request import ChatPrompt, Message, TextPrompt
from server.engine.llama import LlamaModel
from server.engine.llama.vocabulary import LlamaVocabulary
from server.prompt.chat_model import ChatModel
from server.prompt.families.definitions import load_families

pytestmark = pytest.mark.process

# The printable bytes of GPT-2's byte-level alphabet; llama.cpp's default for BOS and EOS is id 11.
BYTES = [chr(code) for code in range(33, 127)]
COMMA_LIKE = BYTES[11]
TEMPLATE = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"


def vocabulary(path: Path, *, names: Callable[[gguf.GGUFWriter], object] = id) -> LlamaVocabulary:
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_vocab_size(len(BYTES) + 1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*BYTES, "<|stop|>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * len(BYTES) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["a b"])
    writer.add_add_bos_token(True)
    names(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return LlamaModel(str(path), vocabulary_only=True).vocabulary


def chat(vocabulary: LlamaVocabulary) -> ChatModel:
    return ChatModel.open(
        {"tokenizer.chat_template": TEMPLATE}, vocabulary, "m", families=load_families([])
    )


def test_they_are_absent_from_prompts_and_end_no_answer(tmp_path: Path) -> None:
    bare = vocabulary(tmp_path / "bare.gguf")

    assert (bare.bos, bare.eos, bare.add_bos) == (None, None, False)
    assert not bare.is_end_of_generation(11)
    assert bare.text(11) == COMMA_LIKE
    built = chat(bare).build(ChatPrompt(messages=[Message(role="user", content="xy")]))
    assert built.rendered.prompt == "xy"
    assert [bare.text(token) for token in built.rendered.tokens] == ["x", "y"]
    raw = chat(bare).build(TextPrompt(text="xy"))
    assert [bare.text(token) for token in raw.rendered.tokens] == ["x", "y"]


def test_a_stated_end_may_be_text(tmp_path: Path) -> None:
    named = vocabulary(tmp_path / "text.gguf", names=lambda writer: writer.add_eos_token_id(7))

    assert named.end_of_generation_tokens == {7}


@pytest.mark.parametrize("value", ["9" * 5_000, "-1", "", "x"])
def test_what_is_no_token_is_not_taken_for_one(tmp_path: Path, value: str) -> None:
    def names(writer: gguf.GGUFWriter) -> None:
        writer.add_string("tokenizer.ggml.own_token_id", value)

    assert not vocabulary(tmp_path / "odd.gguf", names=names).end_of_generation_tokens


def test_stated_ones_are_used(tmp_path: Path) -> None:
    def names(writer: gguf.GGUFWriter) -> None:
        writer.add_bos_token_id(len(BYTES))
        writer.add_eos_token_id(len(BYTES))

    stated = vocabulary(tmp_path / "stated.gguf", names=names)

    assert stated.bos == stated.eos == len(BYTES)
    assert stated.is_end_of_generation(len(BYTES))
    built = chat(stated).build(ChatPrompt(messages=[Message(role="user", content="x")]))
    assert built.rendered.prompt == "<|stop|>x<|stop|>"

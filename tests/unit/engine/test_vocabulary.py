"""The bound on how few tokens a text can have, over the vocabularies of real models."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import llama_cpp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.llama import LlamaModel
from server.engine.llama.vocabulary import LlamaVocabulary

VOCABULARIES = Path(__file__).parents[4] / "shared" / "corpus" / "vocabs"

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not VOCABULARIES.is_dir(), reason="the corpus of vocabularies is not here"),
    pytest.mark.filterwarnings("ignore:llama_token_get_attr:DeprecationWarning"),
]


@cache
def vocabulary(name: str) -> LlamaVocabulary:
    path = VOCABULARIES / f"ggml-vocab-{name}.gguf"
    return LlamaModel(str(path), vocabulary_only=True).vocabulary


runs = st.tuples(st.text(min_size=1, max_size=4), st.integers(1, 200))
texts = st.lists(runs.map(lambda run: run[0] * run[1]), max_size=6).map("".join)
special = st.sampled_from(["<|endoftext|>", "<|assistant|>", "</s>", " ", "\n", "\t", "="])
mixed = st.lists(st.one_of(texts, special.map(lambda text: text * 40)), max_size=4).map("".join)


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "bert-bge"])
@settings(max_examples=60, deadline=None)
@given(text=mixed, parse_special=st.booleans())
def test_no_text_has_fewer_tokens_than_the_bound(name: str, text: str, parse_special: bool) -> None:
    tokens = vocabulary(name).tokenize(text, parse_special=parse_special)
    assert vocabulary(name).fewest_tokens(text, 0) <= len(tokens)
    assert vocabulary(name).fewest_tokens(text, len(tokens)) == 0


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"])
def test_a_text_of_many_megabytes_is_known_not_to_fit(name: str) -> None:
    assert vocabulary(name).fewest_tokens("All work and no play. " * 500_000, 40_000) > 40_000


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "phi-3", "qwen2", "bert-bge", "command-r"])
def test_every_token_that_ends_an_answer_is_known(name: str) -> None:
    tokens = vocabulary(name)
    is_end = partial(llama_cpp.llama_vocab_is_eog, tokens._pointer)
    assert tokens.end_of_generation_tokens == set(filter(is_end, range(tokens.size)))


def test_where_words_fold_into_one_token_there_is_no_bound() -> None:
    assert vocabulary("bert-bge").fewest_tokens("x" * 1_000_000, 0) == 0

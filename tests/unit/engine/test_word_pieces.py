"""BERT's tokenizer, against the reference implementation and the corpus' expectations."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from server.engine.llama import LlamaModel
from server.engine.llama.vocabulary import LlamaVocabulary
from server.engine.llama.word_pieces import WordPieces

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "vocabs"
FILE = CORPUS / "ggml-vocab-bert-bge.gguf"

pytestmark = pytest.mark.process
needs_corpus = pytest.mark.skipif(not FILE.exists(), reason="the corpus of vocabularies is absent")

TEXTS = [
    "한국어 문장입니다",
    "हिन्दी में लिखा गया वाक्य",
    "สวัสดี ชาวโลก",
    "日本語のテキスト、中文。",
    "naïve Ünïcode ÇA",
    "x" * 100 + " " + "y" * 101,
    "a.b,c!? $1.50 <b>[CLS] [MASK]</b>",
    "tab\there\u00a0and\u200bthere \u0000\ufffd",
    "",
]


@cache
def vocabulary() -> LlamaVocabulary:
    return LlamaModel(str(FILE), vocabulary_only=True).vocabulary


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizerLegacy:
    def written(token: str) -> str:
        if token[0] == "\u2581" or (token[0] == "[" and token[-1] == "]"):
            return token.removeprefix("\u2581")
        return f"##{token}"

    file = tmp_path_factory.mktemp("bert") / "vocab.txt"
    texts = [written(vocabulary().text(token)) for token in range(vocabulary().size)]
    file.write_text("\n".join(texts), encoding="utf-8")
    return BertTokenizerLegacy(str(file))


def words(reference: BertTokenizerLegacy, text: str) -> list[int]:
    # Its own search for control tokens in texts is left out: here they stay text.
    ids: list[int] = reference.convert_tokens_to_ids(reference._tokenize(text))
    return ids


@needs_corpus
@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_all_scripts_are_split_as_by_the_reference(
    reference: BertTokenizerLegacy, text: str
) -> None:
    assert vocabulary().tokenize(text, parse_special=False) == words(
        reference, text.replace("[CLS]", "[ CLS ]").replace("[MASK]", "[ MASK ]")
    )


@needs_corpus
def test_the_corpus_expectations_hold() -> None:
    texts = FILE.with_suffix(".gguf.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    expected = FILE.with_suffix(".gguf.out").read_text("utf-8").splitlines()
    for text, ids in zip(texts, expected, strict=False):
        assert vocabulary().tokenize(text, parse_special=False) == [*map(int, ids.split())]


LETTERS = st.characters(codec="utf-8", categories=["L", "M", "N", "P", "S", "Zs"])


@needs_corpus
@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text(LETTERS, max_size=30))
def test_any_text_is_split_as_by_the_reference(reference: BertTokenizerLegacy, text: str) -> None:
    assert vocabulary().tokenize(text, parse_special=False) == words(reference, text)


@needs_corpus
def test_a_text_stands_between_cls_and_sep_and_its_control_tokens_are_text() -> None:
    assert vocabulary().tokenize("hi [MASK]", parse_special=False, add_special=True) == [
        *(101, 7632, 1031, 7308, 1033, 102)
    ]
    assert vocabulary().tokenize("hi [MASK]", parse_special=True) == [7632, 103]


@pytest.mark.parametrize(("word", "expected"), [("Aa", [1, 2]), ("aa", [3, 2])])
def test_a_vocabulary_with_capitals_tells_cases_apart(word: str, expected: list[int]) -> None:
    cased = WordPieces(["[UNK]", "\u2581A", "a", "\u2581a"], unknown=0, special=[0])
    assert cased.ids(word, parse_special=False) == expected


def test_a_vocabulary_without_capitals_takes_all_letters_for_small_ones() -> None:
    uncased = WordPieces(["[UNK]", "\u2581a", "a"], unknown=0, special=[0])
    assert uncased.ids("AÁ b", parse_special=False) == [1, 2, 0]

"""Texts as the tokens that an embedding is computed of, with real tokenizers."""

from __future__ import annotations

import pytest

from server.core.embeddings import Reading
from server.core.errors import ContextLengthExceeded, InvalidRequest
from server.engine.llama import LlamaModel
from server.engine.llama.vocabulary import LlamaVocabulary
from server.prompt.embedding_families import EmbeddingFamily
from server.worker.serve.text_reader import TextReader
from tests.tiny_models import write_tiny_encoder, write_tiny_model

pytestmark = pytest.mark.process

CLS, SEP, BOS = 2, 3, 1
FAMILY = EmbeddingFamily(description="", source="", names=[], query="q ")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> LlamaVocabulary:
    path = write_tiny_encoder(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    return LlamaModel(str(path), vocabulary_only=True).vocabulary


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LlamaVocabulary:
    path = write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "full attention")
    return LlamaModel(str(path), vocabulary_only=True).vocabulary


def test_a_purpose_puts_its_words_in_front(bert: LlamaVocabulary) -> None:
    reader = TextReader(bert, FAMILY, most=100)
    plain = bert.tokenize("q ab", parse_special=False, add_special=True)
    assert reader.read(0, "ab", Reading(purpose="query")).tokens == plain
    for reading in (Reading(), Reading(purpose="document"), Reading(purpose="clustering")):
        assert reader.read(0, "ab", reading).tokens == plain[:1] + plain[2:]
    assert reader.read(0, [5], Reading(purpose="query")).tokens == [5]


def test_either_end_may_be_cut_between_the_tokens_around(bert: LlamaVocabulary) -> None:
    reader = TextReader(bert, None, most=5)
    whole = bert.tokenize("a b c d e f", parse_special=False)
    end = reader.read(0, "a b c d e f", Reading(truncate="end"))
    assert end == ([CLS, *whole[:3], SEP], True)
    start = reader.read(0, "a b c d e f", Reading(truncate="start"))
    assert start == ([CLS, *whole[-3:], SEP], True)
    fitting = reader.read(0, "a b c", Reading(truncate="end"))
    assert fitting == ([CLS, *whole[:3], SEP], False)
    less = reader.read(0, "a b c", Reading(truncate="end", most=4))
    assert less == ([CLS, *whole[:2], SEP], True)


def test_tokens_are_cut_as_they_are(llama: LlamaVocabulary) -> None:
    reader = TextReader(llama, None, most=3)
    assert reader.read(0, [5, 6, 7, 8], Reading(truncate="end")) == ([5, 6, 7], True)
    assert reader.read(0, [5, 6, 7, 8], Reading(truncate="start")) == ([6, 7, 8], True)
    text = reader.read(0, "abcdef", Reading(truncate="end"))
    assert (text.tokens[0], len(text.tokens), text.cut) == (BOS, 3, True)


def test_without_leave_a_long_text_is_refused(bert: LlamaVocabulary) -> None:
    reader = TextReader(bert, FAMILY, most=5)
    with pytest.raises(ContextLengthExceeded, match="input 7 has 8 tokens") as caught:
        reader.read(7, "a b c d e f", Reading())
    assert caught.value.at == ("input", 7)
    with pytest.raises(ContextLengthExceeded, match="4 tokens"):
        reader.read(0, "a b c", Reading(most=4))
    with pytest.raises(InvalidRequest, match="no room"):
        reader.read(0, "a", Reading(truncate="end", most=2))


def test_a_huge_text_is_not_tokenised_whole_to_be_cut(
    bert: LlamaVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    tokenize = LlamaVocabulary.tokenize

    def measured(self: LlamaVocabulary, text: str, **options: bool) -> list[int]:
        lengths.append(len(text))
        return tokenize(self, text, **options)

    monkeypatch.setattr(LlamaVocabulary, "tokenize", measured)
    reader = TextReader(bert, None, most=5)
    for end in ("start", "end"):
        reading = Reading(truncate=end)
        assert reader.read(0, "ab " * 1_000_000, reading).cut
    assert max(lengths) < 10_000

"""Tokens of texts and texts of tokens, by llama.cpp's own tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.core.errors import InvalidRequest
from server.core.tokens import TokenizeRequest, Tokens
from server.engine.llama import LlamaModel
from server.engine.llama.vocabulary import LlamaVocabulary
from server.worker.serve import tokenizing
from server.worker.serve.tokenizing import tokenized
from tests.tiny_models import write_tiny_encoder
from tests.tiny_rerankers import write_judge
from tests.unit.prompt.corpus import CORPUS

pytestmark = pytest.mark.process

VOCABULARIES = sorted((CORPUS / "vocabs").glob("*.gguf"))
TEXTS = [
    "Hello, world!",
    "  two spaces, and a tab\tand\n\n lines \r\n ",
    "",
    " ",
    "naïve café 東京 한국어 हिन्दी",
    "𝄞 e\u0301 👩‍👩‍👧 \u202e",
    "</s><|im_end|> </s> a",
    "if x:\n    return {'a': [1, 2.5e10]}",
]


def vocabulary_of(path: Path) -> LlamaVocabulary:
    return LlamaModel(str(path), vocabulary_only=True).vocabulary


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> LlamaVocabulary:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_judge(path, like_llama=True)
    return vocabulary_of(path)


def tokens_of(vocabulary: LlamaVocabulary, *parts: str | int, special: bool = False) -> Tokens:
    return tokenized(vocabulary, TokenizeRequest(parts=[*parts], add_special=special))


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_spell_the_text_they_came_from(spm: LlamaVocabulary, text: str) -> None:
    for parse_special in (True, False):
        wanted = TokenizeRequest(parts=[text], parse_special=parse_special)
        assert tokenized(spm, wanted).text == text.encode()
    again = tokens_of(spm, *tokens_of(spm, text).ids)
    assert again.text == text.encode()


def test_pieces_of_too_many_tokens_are_refused_with_the_number(
    spm: LlamaVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "MOST_PIECES", 3)
    assert len(tokens_of(spm, 5, 6, 7).pieces) == 3
    with pytest.raises(InvalidRequest, match=r"4 tokens.* at most 3") as raised:
        tokens_of(spm, 5, 6, 7, 8)
    assert raised.value.at == ("parts",)
    assert len(tokenized(spm, TokenizeRequest(parts=[5, 6, 7, 8], pieces=False)).ids) == 4


def test_what_is_added_in_front_is_counted(spm: LlamaVocabulary) -> None:
    found = tokens_of(spm, "a", special=True)
    assert (found.added, found.pieces) == (1, [b"<s>", b"", b"a"])
    assert tokens_of(spm, "a").added == 0
    mixed = tokens_of(spm, "a", 2, "b", special=True)
    assert mixed.pieces == [b"<s>", b"", b"a", b"</s>", b"", b"b"]


def test_words_of_bert_are_spelt_without_a_space_in_front(tmp_path: Path) -> None:
    bert = vocabulary_of(write_tiny_encoder(tmp_path / "tiny.gguf"))
    assert tokens_of(bert, "ab cd").text == b"ab cd"
    found = tokens_of(bert, "ab", special=True)
    assert found.text == b"[CLS]ab[SEP]"
    assert found.added == 1


def test_a_token_outside_the_vocabulary_is_refused(spm: LlamaVocabulary) -> None:
    for wrong in (-1, spm.size):
        with pytest.raises(InvalidRequest, match="outside the vocabulary") as caught:
            tokens_of(spm, "a", wrong)
        assert caught.value.at == ("parts", 1)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem) for path in VOCABULARIES]
    or [pytest.param(None, marks=pytest.mark.skip(reason="needs ../shared/corpus/vocabs"))],
)
def test_every_vocabulary_of_the_corpus_makes_the_round_trip(path: Path) -> None:
    vocabulary = vocabulary_of(path)
    # Phi-3's own end tokens take the spaces behind them.
    for text in [text for text in TEXTS if "phi-3" not in path.stem or "</s>" not in text]:
        spelt = tokens_of(vocabulary, text).text.decode()
        if "bert" in path.stem:
            # It forgets cases, accents and spaces.
            assert tokens_of(vocabulary, spelt).text.decode() == spelt
        else:
            assert spelt == text

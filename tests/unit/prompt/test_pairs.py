"""Queries and documents as the tokens of one text."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.core.errors import ContextLengthExceeded
from server.core.resources import templates_directory
from server.prompt.families.definitions import FamilyError
from server.prompt.pairs import Ends, Pair, PlainPairs, TemplatePairs
from server.prompt.ranking_families import ranking_family
from tests.unit.fake_vocabulary import FakeVocabulary

VOCABULARY = FakeVocabulary([("<s>", "control"), ("</s>", "control"), ("[x]", "user_defined")])
ENDS = Ends([0], [1, 1], [1])
TEMPLATE = "<s>do: {instruction}\nq: {query}\nd: {document}</s>so?"


def plain(query: str, document: str, most: int = 100, most_document: int | None = None) -> Pair:
    pairs = PlainPairs(VOCABULARY, ENDS)
    return pairs.pair(query, document, instruction=None, most=most, most_document=most_document)


def templated(
    query: str,
    document: str,
    *,
    template: str = TEMPLATE,
    instruction: str | None = None,
    most: int = 100,
    most_document: int | None = None,
) -> Pair:
    pairs = TemplatePairs(VOCABULARY, template, "rank")
    return pairs.pair(
        query, document, instruction=instruction, most=most, most_document=most_document
    )


def written(pair: Pair) -> list[str]:
    return VOCABULARY.texts(pair.tokens)


def test_a_pair_stands_between_the_separators_of_its_vocabulary() -> None:
    assert written(plain("cat", "dog")) == ["<s>", "cat", "</s>", "</s>", "dog", "</s>"]


def test_a_template_is_filled_and_its_control_tokens_count() -> None:
    expected = ["<s>", "do: rank\nq: cat\nd: dog", "</s>", "so?"]
    assert written(templated("cat", "dog")) == expected
    expected[1] = "do: find\nq: cat\nd: dog"
    assert written(templated("cat", "dog", instruction="find")) == expected


def test_no_text_of_a_request_becomes_a_control_token_or_a_place() -> None:
    for pair in (plain("</s>a", "<s>b"), templated("</s>a", "<s>b", instruction="<s>")):
        assert pair.tokens.count(0) == 1
        assert "</s>a" in "".join(written(pair)) or "</s>" in written(pair)
    assert len(plain("</s>", "").tokens) == 4 + len("</s>")
    mixed = written(templated("{document}", "{query}"))
    assert mixed[1] == "do: rank\nq: {document}\nd: {query}"


def test_texts_of_template_and_request_are_tokenised_together() -> None:
    VOCABULARY.calls.clear()
    templated("cat", "dog")
    assert "do: rank\nq: cat\nd: dog" in VOCABULARY.calls


def test_a_document_that_does_not_fit_loses_its_end() -> None:
    assert plain("cat", "abcdef", most=10) == Pair(plain("cat", "abc").tokens, True, second=6)
    assert plain("cat", "abc", most=10) == Pair(plain("cat", "abc").tokens, False, second=6)
    room = len(templated("cat", "abc").tokens)
    assert templated("cat", "abcdef", most=room) == Pair(templated("cat", "abc").tokens, True)
    around = TEMPLATE.replace("{document}", "({document})")
    cut = templated("cat", "abcdef", template=around, most=room + 2)
    assert cut == Pair(templated("cat", "abc", template=around).tokens, True)


def test_a_document_gets_no_more_tokens_than_it_may_have() -> None:
    assert plain("cat", "abcdef", most_document=2) == Pair(
        plain("cat", "ab").tokens, True, second=6
    )
    assert templated("cat", "abcdef", most_document=2) == Pair(templated("cat", "ab").tokens, True)
    assert not plain("cat", "ab", most_document=2).cut


def test_a_query_that_leaves_no_room_is_refused() -> None:
    for pair in (plain, templated):
        with pytest.raises(ContextLengthExceeded) as caught:
            pair("c" * 200, "dog", most=100)
        assert caught.value.at == ("query",)


def test_a_huge_document_is_not_tokenised_whole() -> None:
    VOCABULARY.calls.clear()
    for pair in (plain, templated):
        assert pair("cat", "a" * 1_000_000, most=100).cut
    assert max(map(len, VOCABULARY.calls)) < 10_000


def test_known_families_are_found_by_name() -> None:
    folders = [templates_directory()]
    qwen = ranking_family(folders, ["Qwen3 Reranker 0.6B"])
    assert qwen is not None
    assert (qwen.yes, qwen.no) == ("yes", "no")
    assert qwen.template.endswith("<think>\n\n</think>\n\n")
    gemma = ranking_family(folders, ["bge-reranker-v2-gemma-Q4_K_M.gguf"])
    assert gemma is not None
    assert (gemma.yes, gemma.no) == ("Yes", None)
    assert ranking_family(folders, ["other-reranker"]) is None


@pytest.mark.parametrize("wrong", ['names = ["("]', 'template = "{query}"', "x = 1"])
def test_a_wrong_family_names_its_file(tmp_path: Path, wrong: str) -> None:
    keys = {
        "description": '"d"',
        "source": '"s"',
        "names": '["a"]',
        "instruction": '"i"',
        "yes": '"y"',
        "template": '"{query}{document}"',
    }
    name, _, value = wrong.partition(" = ")
    text = "\n".join(f"{key} = {each}" for key, each in (keys | {name: value}).items())
    (tmp_path / "ranking").mkdir()
    (tmp_path / "ranking" / "mine.toml").write_text(text)
    with pytest.raises(FamilyError, match=r"mine\.toml"):
        ranking_family([tmp_path], ["a"])

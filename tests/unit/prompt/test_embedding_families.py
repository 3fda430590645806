"""What embedding models want in front of texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.core.resources import templates_directory
from server.prompt.embedding_families import embedding_family
from server.prompt.families.definitions import FamilyError

FOLDERS = [templates_directory()]
WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
BGE = "Represent this sentence for searching relevant passages: "


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("nomic-embed-text-v1.5.Q8_0.gguf", "search_query: ", "search_document: "),
        ("Nomic Embed Text V2 Moe", "search_query: ", "search_document: "),
        ("multilingual-e5-large-Q4_K_M", "query: ", "passage: "),
        ("E5 Small V2", "query: ", "passage: "),
        ("multilingual-e5-large-instruct", f"Instruct: {WEB_SEARCH}\nQuery: ", ""),
        ("e5-mistral-7b-instruct", f"Instruct: {WEB_SEARCH}\nQuery: ", ""),
        ("gte-Qwen2-1.5B-instruct", f"Instruct: {WEB_SEARCH}\nQuery: ", ""),
        ("Qwen3-Embedding-0.6B-Q8_0", f"Instruct: {WEB_SEARCH}\nQuery:", ""),
        ("bge-small-en-v1.5-q8_0", BGE, ""),
        ("bge-large-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", ""),
        ("bge-m3-Q4_K_M", "", ""),
        ("mxbai-embed-large-v1", BGE, ""),
        ("snowflake-arctic-embed-m-v1.5", BGE, ""),
        ("snowflake-arctic-embed-l-v2.0", "query: ", ""),
        (
            "embeddinggemma-300M-Q8_0",
            "task: search result | query: ",
            "title: none | text: ",
        ),
        (
            "jina-embeddings-v3",
            "Represent the query for retrieving evidence documents: ",
            "Represent the document for retrieval: ",
        ),
        ("jina-embeddings-v2-base-en", "", ""),
        ("all-MiniLM-L6-v2.F16", "", ""),
        ("gte-modernbert-base", "", ""),
    ],
)
def test_queries_and_documents_begin_as_in_training(name: str, query: str, document: str) -> None:
    family = embedding_family(FOLDERS, [name])
    assert family is not None
    assert family.before("query", None) == query
    assert family.before("document", None) == document
    assert {"query", "document"} <= {*family.purposes}


@pytest.mark.parametrize("name", ["SmolLM2-135M", "te5t-model", "me5h", "x"])
def test_of_other_models_nothing_is_known(name: str) -> None:
    assert embedding_family(FOLDERS, [name]) is None


def test_a_request_may_say_what_its_queries_are_for() -> None:
    family = embedding_family(FOLDERS, ["Qwen3-Embedding"])
    assert family is not None
    assert family.takes_instruction
    assert family.before("query", "find {a}") == "Instruct: find {a}\nQuery:"
    nomic = embedding_family(FOLDERS, ["nomic-embed-text"])
    assert nomic is not None
    assert not nomic.takes_instruction
    assert {"classification", "clustering"} <= {*nomic.purposes}
    assert "similarity" not in nomic.purposes


def test_a_folder_of_ones_own_comes_first(tmp_path: Path) -> None:
    (tmp_path / "embedding").mkdir()
    mine = tmp_path / "embedding" / "mine.toml"
    mine.write_text('description = "d"\nsource = "s"\nnames = ["nomic"]\nquery = "q: "\n')
    family = embedding_family([*FOLDERS, tmp_path], ["nomic-embed-text"])
    assert family is not None
    assert family.before("query", None) == "q: "
    mine.write_text('description = "d"\nsource = "s"\nnames = ["("]\n')
    with pytest.raises(FamilyError, match=r"mine\.toml"):
        embedding_family([*FOLDERS, tmp_path], ["x"])

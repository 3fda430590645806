"""How the texts of a request for embeddings are read: their purpose, and what is cut of them."""

from __future__ import annotations

from typing import Literal

from server.api.openai.schemas.embeddings import EmbeddingRequest
from server.core.embeddings import Purpose, Reading
from server.core.errors import InvalidRequest
from server.core.model_info import ModelInfo

# The words of Cohere and Voyage, Jina (`task`), Gemini (`task_type`) and NVIDIA.
_PURPOSES: dict[str, Purpose] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "retrieval_query": "query",
    "question_answering": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "retrieval.passage": "document",
    "retrieval_document": "document",
    "classification": "classification",
    "clustering": "clustering",
    "separation": "clustering",
    "similarity": "similarity",
    "semantic_similarity": "similarity",
    "text-matching": "similarity",
}
_NO_PURPOSE = {"none", "text", ""}
_ENDS: dict[str, Literal["start", "end"] | None] = {
    "none": None,
    "end": "end",
    "right": "end",
    "start": "start",
    "left": "start",
}


def reading_of(body: EmbeddingRequest) -> Reading:
    """How ``body`` has its texts read.

    Raises InvalidRequest for an end that a text does not have.
    """
    tokens = body.truncate_prompt_tokens
    return Reading(
        purpose=_PURPOSES.get((body.input_type or "").casefold()),
        instruction=body.instruction,
        truncate=_truncate(body),
        most=tokens if tokens and tokens > 0 else None,
    )


def without_effect(body: EmbeddingRequest, reading: Reading, info: ModelInfo) -> list[str]:
    """The fields of ``body`` that change nothing, with this model."""
    embedding = info.embedding
    inputs = body.input if isinstance(body.input, list) else [body.input]
    any_text = any(isinstance(each, str) for each in inputs)
    known = any_text and embedding is not None and reading.purpose in embedding.purposes
    told = known and embedding is not None and embedding.instruction and reading.purpose == "query"
    named = []
    if (body.input_type or "").casefold() not in _NO_PURPOSE and not known:
        named.append(body.place(("input_type",)))
    if body.instruction is not None and not told:
        named.append(("instruction",))
    return [str(at[0]) for at in named]


def _truncate(body: EmbeddingRequest) -> Literal["start", "end"] | None:
    match body.truncate:
        case None:
            return None if body.truncate_prompt_tokens is None else "end"
        case bool():
            return "end" if body.truncate else None
        case word if word.casefold() in _ENDS:
            return _ENDS[word.casefold()]
    raise InvalidRequest("truncate: It is NONE, START, END or a boolean.", at=("truncate",))

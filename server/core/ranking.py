"""Ranking documents for a query: what is asked of a model, and what it finds."""

from __future__ import annotations

import msgspec


class RankingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Documents to score, each for its query, or all for the only one.

    Attributes:
        queries: One, or as many as there are documents.
        documents: At least one.
        instruction: What the ranking is for, where the model has a place for it.
        truncate: Whether a pair that is too long is read without the end of its document.
        most: The most tokens of a pair, if that is less than the model's.
        most_document: The most tokens of a document, whose end is left out.
    """

    queries: list[str]
    documents: list[str]
    instruction: str | None = None
    truncate: bool = True
    most: int | None = None
    most_document: int | None = None


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """One score per document, in the order of the request.

    ``logits`` are the model's own numbers, of any sign: the logarithms of the odds that a document
    is relevant. ``prompt_tokens`` counts the tokens of all pairs of query and document. ``cut`` are
    the documents of which only the beginning was read, by their places from 0.
    """

    logits: list[float]
    prompt_tokens: int
    cut: list[int] = []

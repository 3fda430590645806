"""``POST /v1/rerank``, ``/v2/rerank`` and ``/rerank``: documents in the order of their relevance.

The answer at ``/v1`` and ``/v2`` is Jina's and Cohere's in one. A body with ``texts`` is TEI's and
gets TEI's answer.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import json

from server.api.endpoint import described_body, read
from server.api.ignored_names import ignored_header, unknown_names
from server.api.ranking.errors import locate
from server.api.ranking.schemas import Document, Ranking, RerankRequest
from server.api.ranking.scoring import scale, scored, without_effect
from server.api.truncated import truncated_header
from server.core.errors import InvalidRequest, Locator
from server.core.ids import random_id
from server.core.ranking import RankingRequest, Scores

# Cohere's: up to this many documents are one search.
_DOCUMENTS_PER_SEARCH = 100

router = APIRouter()
tei_router = APIRouter()
_describe: dict[str, Any] = {
    "response_model": Ranking,
    "openapi_extra": described_body(RerankRequest),
}


@router.post("/v1/rerank", **_describe)
@router.post("/v1/reranking", include_in_schema=False)
async def rerank(request: Request) -> Response:
    """Order documents by their relevance for a query, as Jina and Cohere (version 1) have it."""
    return await _answered(request, version="1")


@router.post("/v2/rerank", **_describe)
async def rerank_2(request: Request) -> Response:
    """The same in version 2 of Cohere's API, without documents in the results."""
    return await _answered(request, version="2")


@tei_router.post("/rerank", **_describe)
@tei_router.post("/reranking", include_in_schema=False)
async def rerank_texts(request: Request) -> Response:
    """Order ``texts`` by their relevance for a query, as text-embeddings-inference has it."""
    return await _answered(request, version="1")


async def _answered(request: Request, *, version: str) -> Response:
    body = await read(request, RerankRequest)
    wanted = _wanted(body)
    field = "documents" if body.texts is None else "texts"
    info, scores = await scored(request, body.model, wanted, partial(_placed, body, field))
    if body.texts is None:
        content: Any = _ranking(body, scores, info.model_id, version=version)
    else:
        content = _text_ranks(body, body.texts, scores)
    headers = {
        **ignored_header([*_ignored(body), *without_effect(wanted, info)]),
        **truncated_header(field, scores.cut),
    }
    return Response(json.encode(content), media_type="application/json", headers=headers)


def _wanted(body: RerankRequest) -> RankingRequest:
    if (body.documents is None) == (body.texts is None):
        problem = (
            "There is no document."
            if body.texts is None
            else "texts and documents exclude each other."
        )
        raise InvalidRequest(f"documents: {problem}", at=("documents",))
    documents = body.texts or [
        _text(document, body.rank_fields, number)
        for number, document in enumerate(body.documents or [])
    ]
    tokens = body.truncate_prompt_tokens
    cut_by_default = body.texts is None or tokens is not None
    return RankingRequest(
        queries=[body.query],
        documents=documents,
        instruction=body.instruction,
        truncate=cut_by_default if body.truncate is None else body.truncate,
        most=tokens if tokens and tokens > 0 else None,
        most_document=body.max_tokens_per_doc,
    )


def _text(document: Document, rank_fields: list[str] | None, number: int) -> str:
    """What is read of a document: its ``text``, or ``rank_fields`` in their order as YAML."""
    if isinstance(document, str):
        return document
    fields = {"text": document.text, **(document.model_extra or {})}
    if rank_fields is None:
        if document.text is None:
            raise InvalidRequest(
                f"documents[{number}].text: Field required; documents are texts here.",
                at=("documents", number, "text"),
            )
        return document.text
    named = [(name, fields[name]) for name in rank_fields if fields.get(name) is not None]
    if not named:
        raise InvalidRequest(
            f"documents[{number}]: It has none of the fields that rank_fields names.",
            at=("documents", number),
        )
    if rank_fields == ["text"]:
        return str(named[0][1])
    return "\n".join(f"{name}: {_plain(value)}" for name, value in named)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.encode(value).decode()


def _ignored(body: RerankRequest) -> list[str]:
    """The fields that have no effect: unknown ones, and those of documents that do not count."""
    counts = {"text"} if body.rank_fields is None else set(body.rank_fields)
    others = {
        f"documents.{name}"
        for document in body.documents or []
        if not isinstance(document, str)
        for name in document.model_extra or {}
        if name not in counts
    }
    names = [*unknown_names(body), *sorted(others)]
    if (body.truncation_direction or "right").casefold() != "right":
        names.append("truncation_direction")
    return names


def _placed(body: RerankRequest, field: str, at: Locator) -> Locator:
    """Where the client wrote what is at the canonical place ``at``."""
    moved = (field, *at[1:]) if at[:1] == ("documents",) else locate(at)
    return body.place(moved)


def _best(scores: Scores, top_n: int | None) -> list[int]:
    """The places of the documents, the best first; equal ones in their order."""
    order = sorted(range(len(scores.logits)), key=lambda place: -scores.logits[place])
    return order[:top_n]


def _ranking(body: RerankRequest, scores: Scores, model: str, *, version: str) -> dict[str, Any]:
    given = body.documents or []
    shown = version == "1" if body.return_documents is None else body.return_documents
    results = [
        {
            "index": place,
            "relevance_score": scale(scores.logits[place], raw=body.raw_scores),
            **({"document": _shown(given[place])} if shown else {}),
        }
        for place in _best(scores, body.top_n)
    ]
    tokens = scores.prompt_tokens
    return {
        "id": f"rerank-{random_id(24)}",
        "object": "list",
        "model": model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"search_units": -(-len(given) // _DOCUMENTS_PER_SEARCH)},
            "tokens": {"input_tokens": tokens},
        },
    }


def _shown(document: Document) -> dict[str, Any]:
    if isinstance(document, str):
        return {"text": document}
    return document.model_dump(exclude_unset=True)


def _text_ranks(body: RerankRequest, texts: list[str], scores: Scores) -> list[dict[str, Any]]:
    return [
        {
            "index": place,
            "score": scale(scores.logits[place], raw=body.raw_scores),
            **({"text": texts[place]} if body.return_text or body.return_documents else {}),
        }
        for place in _best(scores, body.top_n)
    ]

"""Bodies and answers of reranking and scoring."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.api.spellings import respelled_names
from server.api.validation import Opaque, Respelled, WireModel
from server.core.sampling import INT32_MAX

MAX_DOCUMENTS = 10_000

Count = Annotated[int, Field(ge=1, le=INT32_MAX)]
Query = Annotated[str, Field(min_length=1)]


class RankedObject(Opaque):
    """A document with fields: its ``text``, or those that ``rank_fields`` names."""

    text: str | None = None


Document = str | RankedObject


class RerankRequest(WireModel):
    """A query and documents, as Jina, Cohere (``documents``) and TEI (``texts``) write them."""

    model: str | None = Field(
        None, description="May be left out where there is one model that ranks."
    )
    query: Query
    documents: Annotated[list[Document], Field(min_length=1, max_length=MAX_DOCUMENTS)] | None = (
        Field(None, description="Strings, or objects with a ``text``.")
    )
    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_DOCUMENTS)] | None = Field(
        None, description="TEI's name for ``documents``; the answer is TEI's, too."
    )
    top_n: Count | None = Field(None, description="How many of the best to list; default: all.")
    return_documents: bool | None = Field(
        None, description="Whether results have their documents; default: at ``/v1`` only."
    )
    return_text: bool | None = Field(None, description="The same in TEI's answer; default: no.")
    raw_scores: bool | None = Field(
        None, description="Logits instead of their sigmoid, which is between 0 and 1."
    )
    instruction: str | None = Field(
        None, description="What the ranking is for, where the model's prompt has a place for it."
    )
    rank_fields: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="The fields of documents that count, in this order; default: ``text``."
    )
    max_tokens_per_doc: Count | None = Field(
        None, description="The most tokens read of a document."
    )
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=INT32_MAX)] | None = Field(
        None, description="The most tokens read of query and document; -1: as the model has."
    )
    truncate: bool | None = Field(
        None,
        description="Whether a document that is too long is cut (the answer's header "
        "``x-dragoman-truncated`` names it) or refused; default: cut, with ``texts`` refused.",
    )
    truncation_direction: str | None = Field(None, description="Documents are cut at their end.")

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under our names for Jina's and Voyage's."""
        return respelled_names(
            body,
            {
                "max_doc_length": "max_tokens_per_doc",
                "truncation": "truncate",
                "top_k": "top_n",
                "instruct": "instruction",
            },
        )


class ScoreRequest(WireModel):
    """Texts to score against each other: one and many, or pair by pair."""

    model: str | None = Field(
        None, description="May be left out where there is one model that ranks."
    )
    text_1: Query | Annotated[list[Query], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    text_2: str | Annotated[list[str], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    instruction: str | None = None
    raw_scores: bool | None = Field(None, description="Logits instead of their sigmoid.")
    use_activation: bool | None = Field(None, description="vLLM's word for not ``raw_scores``.")
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=INT32_MAX)] | None = Field(
        None, description="Cut longer pairs to this many tokens; -1: to what the model takes."
    )

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under the older of vLLM's names for the two texts."""
        return respelled_names(
            body,
            {
                "queries": "text_1",
                "data_1": "text_1",
                "documents": "text_2",
                "items": "text_2",
                "data_2": "text_2",
                "activation": "use_activation",
            },
        )


class RankingUsage(BaseModel):
    """Tokens of all pairs of query and document."""

    prompt_tokens: int
    total_tokens: int


class RankingResult(BaseModel):
    """A document's place in the request and its score."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class RankingMeta(BaseModel):
    """What Cohere's clients read; a search unit is a query with up to 100 documents."""

    api_version: dict[str, str]
    billed_units: dict[str, int]
    tokens: dict[str, int]


class Ranking(BaseModel):
    """Results, the best first: Jina's answer and Cohere's in one."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RankingResult]
    usage: RankingUsage
    meta: RankingMeta


class ScoreObject(BaseModel):
    """The score of one pair."""

    index: int
    object: Literal["score"]
    score: float


class ScoreUsage(RankingUsage):
    """Scores cost a prompt and no completion."""

    completion_tokens: int = 0


class ScoreList(BaseModel):
    """The scores, in the order of the pairs."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoreObject]
    usage: ScoreUsage


class RerankError(BaseModel):
    """An error as clients of Cohere (``message``), Jina (``detail``) and OpenAI read it."""

    message: str
    detail: str
    error: dict[str, str | None]


class TeiError(BaseModel):
    """An error in TEI's form."""

    error: str
    error_type: str

"""Models on the wire: OpenAI's four fields, and facts about a local model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from server.api.native.codex_catalog import CodexModel
from server.core.model_info import ModelKind, ModelState, Pooling


class EmbeddingFacts(BaseModel):
    """A model's embeddings: their dimensions, the most tokens of a text, and what it may be for."""

    model_config = ConfigDict(from_attributes=True)

    dimensions: int
    pooling: Pooling
    context: int
    purposes: list[str]
    instruction: bool


class RankingFacts(BaseModel):
    """How a model ranks: the most tokens of a pair, and whether it takes an ``instruction``."""

    model_config = ConfigDict(from_attributes=True)

    context: int
    instruction: bool


class ModelObject(BaseModel):
    """A model; facts that only loading reveals are absent before, others come from the header.

    ``parent`` is the id of the model where this is one with an adapter.
    ``memory_bytes`` are reserved of the memory budget; ``idle_seconds`` went by since the last
    request, if none runs.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    state: ModelState
    reason: str | None
    aliases: list[str]
    parent: str | None
    file: str
    kind: ModelKind = "instruct"
    kind_reasons: list[str] = []
    context: int = 0
    context_source: str = ""
    context_train: int = 0
    template_source: str = ""
    template_sha256: str = ""
    family: str | None = None
    capabilities: dict[str, bool] = {}
    template_variables: list[str] | None = None
    generates: bool = True
    embedding: EmbeddingFacts | None = None
    ranks: bool = False
    ranking: RankingFacts | None = None
    projector: str | None = None
    draft: str | None = None
    architecture: str = ""
    parameters: int = 0
    quantization: str = ""
    file_bytes: int = 0
    vocabulary: int = 0
    fingerprint: str = ""
    warnings: list[str] = []
    memory_bytes: int = 0
    requests: int = 0
    idle_seconds: float | None = None


class ModelChoice(BaseModel):
    """The body of requests about one model."""

    model: str


class ModelList(BaseModel):
    """All models, broken ones with the reason; ``models`` is for Codex."""

    object: Literal["list"]
    data: list[ModelObject]
    models: list[CodexModel]

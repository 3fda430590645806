"""Facts about a model, loaded or not."""

from __future__ import annotations

from typing import Literal

import msgspec

from server.core.embeddings import Purpose
from server.core.reply_format import ReplyFormat
from server.core.sampling import Sampling

ModelKind = Literal["base", "instruct", "chat"]
ModelState = Literal["ready", "loading", "unloaded", "failed"]
Pooling = Literal["mean", "cls", "last"]

OWN_HEAD = "mtp"
"""What ``draft`` says where no other model drafts, but the model's own head (MTP)."""


class EmbeddingInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model's embeddings: how many numbers each has, and how many tokens a text may have.

    ``pooling`` says how the tokens' embeddings become that of the text: their mean, or one of them.
    For ``purposes`` it is known what stands in front of a text; ``instruction`` says whether a
    request may tell what a query is for.
    """

    dimensions: int
    pooling: Pooling
    context: int
    purposes: list[Purpose] = []
    instruction: bool = False


class RankingInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How a model ranks: the most tokens of query and document together.

    ``instruction`` says whether a request may tell what the ranking is for.
    """

    context: int
    instruction: bool


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that a worker found out about its model.

    ``context_source`` says where ``context`` (most tokens of one request) came from;
    ``template_source`` is ``gguf`` or ``family NAME``. ``capabilities`` are the probe's verdicts by
    name; ``reply_format`` is None when replies are content only. ``memory_bytes`` is the memory of
    weights, KV cells and buffers together, where it is known. ``template_variables`` are those a
    request may set, None where that is not known. A model made for embeddings or ranking alone does
    not generate. ``embedding`` and ``ranking`` are None where it does not do that or where weights
    were not loaded. ``projector`` is the type of the encoder beside it, which lets it see images,
    ``draft`` the file of a smaller model that drafts for it, or `OWN_HEAD`. ``declined`` says, in
    words, which other code than our kernels computed when a generating model was tried, so that its
    answers may not repeat.
    """

    model_id: str
    path: str
    architecture: str
    parameters: int
    quantization: str
    file_bytes: int
    vocabulary: int
    kind: ModelKind
    kind_reasons: list[str]
    context: int
    context_source: str
    context_train: int
    kv_cells: int
    parallel: int
    threads: int
    gpu_layers: int
    family: str | None
    template_source: str
    template_sha256: str
    capabilities: dict[str, bool]
    reply_format: ReplyFormat | None
    sampling: Sampling
    guard: bool
    safe_mode: bool
    fingerprint: str
    memory_bytes: int | None = None
    template_variables: list[str] | None = None
    generates: bool = True
    embedding: EmbeddingInfo | None = None
    ranking: RankingInfo | None = None
    projector: str | None = None
    draft: str | None = None
    declined: str | None = None
    warnings: list[str] = []

    @property
    def ranks(self) -> bool:
        """Whether it was made to rank texts."""
        return self.ranking is not None


class ModelOutline(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that a model file's header tells before the model is loaded, named as in `ModelInfo`.

    ``context`` is the most tokens of one request where memory does not bound it.
    """

    architecture: str
    parameters: int
    quantization: str
    file_bytes: int
    vocabulary: int
    kind: ModelKind
    kind_reasons: list[str]
    context: int
    context_source: str
    context_train: int
    generates: bool
    ranks: bool = False
    projector: str | None = None
    draft: str | None = None


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters (``_total``, since the worker started) and gauges of the engine."""

    active: int = 0
    waiting: int = 0
    kv_cells: int = 0
    kv_cells_used: int = 0
    threads: int = 0
    steps_total: int = 0
    prompt_tokens_total: int = 0
    generated_tokens_total: int = 0
    cached_tokens_total: int = 0
    preemptions_total: int = 0
    draft_tokens_total: int = 0
    accepted_draft_tokens_total: int = 0
    draft_models: int = 0
    answers_repeat: int = 0
    disk_reads_total: int = 0
    disk_read_bytes_total: int = 0
    disk_tokens_total: int = 0
    disk_seconds_saved: float = 0.0
    disk_writes_total: int = 0
    disk_written_bytes_total: int = 0
    disk_unusable_total: int = 0


class AdapterFile(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter of a model on disk, served as ``<model>:<name>`` unless ``error`` says why not.

    ``created`` is in Unix seconds.
    """

    name: str
    path: str
    created: int = 0
    error: str | None = None


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the API lists it.

    ``created`` is in Unix seconds; ``reason`` says why the state is ``failed``; ``info`` is what
    its worker last reported. ``outline`` is None where the header cannot be read. ``parent`` is the
    model's id where this is one of its ``adapters``. ``memory_bytes`` are reserved for it,
    ``requests`` wait or are answered, and ``idle_seconds`` went by since the last one, or are None
    while the model is not idle.
    """

    id: str
    path: str
    created: int
    state: ModelState
    reason: str | None
    info: ModelInfo | None
    aliases: list[str]
    outline: ModelOutline | None = None
    adapters: list[AdapterFile] = []
    parent: str | None = None
    memory_bytes: int = 0
    requests: int = 0
    idle_seconds: float | None = None

    @property
    def known(self) -> ModelInfo | ModelOutline | None:
        """What is known of the model: its worker's word, or else its header's."""
        return self.info or self.outline

    def adapted(self, adapter: AdapterFile) -> ModelEntry:
        """The model with ``adapter``, which is listed as a model of its own."""
        return msgspec.structs.replace(
            self,
            id=adapted_id(self.id, adapter.name),
            path=adapter.path,
            created=adapter.created,
            state="failed" if adapter.error else self.state,
            reason=adapter.error or self.reason,
            aliases=[adapted_id(alias, adapter.name) for alias in self.aliases],
            adapters=[],
            parent=self.id,
        )


def adapted_id(model_id: str, adapter: str) -> str:
    """The id of a model with one of its adapters."""
    return f"{model_id}:{adapter}"

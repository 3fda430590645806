"""Loading a model in its worker: to generate, embed or rank, or its vocabulary alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from server.core.model_info import OWN_HEAD, EmbeddingInfo, ModelInfo, RankingInfo
from server.core.pieces import ImageReader
from server.core.request import CacheScope
from server.engine.llama import (
    LlamaContext,
    LlamaEmbedder,
    LlamaReranker,
    LoadError,
)
from server.engine.llama.adapters import LlamaAdapter
from server.engine.llama.projector import Projector
from server.engine.llama.vocabulary import LlamaVocabulary
from server.engine.sampling.compiler_on_demand import CompilerOnDemand
from server.engine.vision.reader import PictureReader
from server.library.file_facts import FileFacts
from server.prompt.chat_model import ChatModel
from server.prompt.embedding_families import EmbeddingFamily
from server.prompt.pairs import PairPrompt
from server.worker.protocol import Load, Progress
from server.worker.serve.adapters import Adapters
from server.worker.serve.contexts import WARMUP_TOKENS, open_context, warm_up
from server.worker.serve.draft import open_draft, open_own_head
from server.worker.serve.opening import OpenedModel, Report, open_model
from server.worker.serve.ranking_method import ranking_method, ranks

# Embeddings beside generation have KV cells of their own, which no memory estimate counts: as many
# as the longest text needs, at most these. OpenAI's embedding models take texts as long.
_MOST_TOKENS_EMBEDDED_ASIDE = 8192
# Tokens that an encoder reads at once, where they are of several texts: products of larger
# matrices take less time a token. The 64 texts of a step fit if they are short; a choice.
_TOKENS_TOGETHER = 1024

OpenReranker = Callable[[int], LlamaReranker]
"""Makes a reranker for that many tokens at a time, or raises LoadError."""

OpenEmbedder = Callable[[int], LlamaEmbedder]
"""Makes an embedder for that many tokens at a time, or raises LoadError."""


@dataclass(frozen=True, slots=True)
class VocabularyOnly:
    """A model without weights: it shows prompts as the whole model would get them."""

    info: ModelInfo
    chat: ChatModel
    vocabulary: LlamaVocabulary


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model made for embeddings, which does not generate."""

    info: ModelInfo
    chat: ChatModel
    vocabulary: LlamaVocabulary
    embedding: EmbeddingInfo
    open_embedder: OpenEmbedder
    embedding_family: EmbeddingFamily | None = None


@dataclass(frozen=True, slots=True)
class RankingModel:
    """A model made to rank texts, which does nothing else.

    ``shares`` says whether it computes only once what pairs begin with.
    """

    info: ModelInfo
    chat: ChatModel
    vocabulary: LlamaVocabulary
    pairs: PairPrompt
    ranking: RankingInfo
    shares: bool
    open_reranker: OpenReranker


@dataclass(frozen=True, slots=True)
class GenerationModel:
    """A model that generates, and embeds beside that.

    ``files`` are the model's, as they were before it was loaded. ``compiler`` is
    built on demand. ``stored_tokens`` is the room for cached prefixes in host memory.
    ``adapters`` are those that requests name. A model that sees images has a ``projector``, and
    ``read_image``, which is for one thread. In ``draft`` a smaller model drafts, or its own head.
    """

    info: ModelInfo
    files: list[FileFacts]
    chat: ChatModel
    vocabulary: LlamaVocabulary
    embedding: EmbeddingInfo
    open_embedder: OpenEmbedder
    context: LlamaContext
    compiler: CompilerOnDemand
    stored_tokens: int
    adapters: Adapters
    embedding_family: EmbeddingFamily | None = None
    projector: Projector | None = None
    read_image: PictureReader | None = None
    draft: LlamaContext | None = None

    def image_reader(self, scope: CacheScope) -> ImageReader | None:
        """What reads images of requests of this scope; None: the model sees none."""
        return self.read_image and partial(self.read_image, owner=scope.api_key)


Loaded = GenerationModel | EmbeddingModel | RankingModel | VocabularyOnly


def load(request: Load, report: Report) -> Loaded:
    """Load what ``request`` names.

    Raises:
        LoadError, InvalidGguf, FamilyError: The model cannot be served; the message says why.
        OSError: The file cannot be read.
    """
    opened = open_model(request, report)
    # Files of models made for embeddings state a pooling.
    made_for_embeddings = opened.model.pooling is not None
    made_to_rank = ranks(opened)
    if request.vocabulary_only:
        generates = not made_for_embeddings and not made_to_rank
        return VocabularyOnly(
            info=opened.info(
                generates=generates, head_problem=opened.head_problem if generates else None
            ),
            chat=opened.chat,
            vocabulary=opened.model.vocabulary,
        )
    if not opened.model.is_supported:
        architecture = opened.header.architecture
        raise LoadError(f"this {architecture} model neither generates text nor embeds it")
    if made_to_rank:
        return _load_ranking_model(opened, report)
    if made_for_embeddings or not opened.model.reads_in_parts:
        return _load_embedding_model(opened, report)
    return _load_generation_model(opened, report)


def _load_embedding_model(opened: OpenedModel, report: Report) -> EmbeddingModel:
    open_embedder = _embedder_opener(opened, opened.threads, together=_TOKENS_TOGETHER)
    report(Progress(stage="warmup", fraction=1.0))
    embedder = open_embedder(WARMUP_TOKENS)
    embedder.embed([[0] * WARMUP_TOKENS])
    embedder.close()
    embedding = _embedding_info(opened, _longest_text(opened))
    return EmbeddingModel(
        info=opened.info(generates=False, embedding=embedding),
        chat=opened.chat,
        vocabulary=opened.model.vocabulary,
        embedding=embedding,
        open_embedder=open_embedder,
        embedding_family=opened.embedding_family,
    )


def _load_ranking_model(opened: OpenedModel, report: Report) -> RankingModel:
    method = ranking_method(opened)
    settings = opened.request.settings

    def open_reranker(most_tokens: int) -> LlamaReranker:
        return LlamaReranker(
            opened.model,
            method.head,
            most_tokens=most_tokens,
            threads=opened.threads,
            flash_attention=settings.flash_attention,
            kv_type=settings.kv_type,
            typed=method.typed,
        )

    report(Progress(stage="warmup", fraction=1.0))
    reranker = open_reranker(WARMUP_TOKENS)
    reranker.begin([])
    reranker.score([[0] * WARMUP_TOKENS])
    reranker.close()
    ranking = RankingInfo(context=_longest_text(opened), instruction=method.pairs.takes_instruction)
    return RankingModel(
        info=opened.info(generates=False, ranking=ranking, warnings=method.warnings),
        chat=opened.chat,
        vocabulary=opened.model.vocabulary,
        pairs=method.pairs,
        ranking=ranking,
        shares=opened.model.reads_in_parts,
        open_reranker=open_reranker,
    )


def _load_generation_model(opened: OpenedModel, report: Report) -> GenerationModel:
    vocabulary = opened.model.vocabulary
    settings, cells = opened.request.settings, opened.layout.kv_cells
    context = open_context(opened.model, settings, cells=cells, threads=opened.threads)
    draft = drafter = None
    if settings.draft is not None and opened.model.partial_removal:
        draft = open_draft(settings.draft, opened, cells=context.kv_cells, report=report)
        drafter = Path(settings.draft.path).name
    # The threads of a decode wait for each other, and so for the one beside which templates are
    # tried out: it would take as long as both, or longer.
    chat = opened.chat
    report(Progress(stage="warmup", fraction=1.0))
    warm_up(context)
    if draft is not None:
        warm_up(draft)
    head, head_problem = open_own_head(opened, cells=context.kv_cells)
    if head is not None:
        drafter = OWN_HEAD
    projector = opened.projector
    embedding = _embedding_info(opened, min(_longest_text(opened), _MOST_TOKENS_EMBEDDED_ASIDE))
    return GenerationModel(
        info=opened.info(
            generates=True,
            kv_cells=context.kv_cells,
            embedding=embedding,
            drafter=drafter,
            head_problem=head_problem,
            declined=context.declined,
        ),
        files=opened.files,
        chat=chat,
        vocabulary=vocabulary,
        embedding=embedding,
        # Most of the processor stays with the answers that are being generated.
        open_embedder=_embedder_opener(opened, max(1, opened.threads // 2)),
        context=context,
        compiler=CompilerOnDemand(vocabulary.guidance_tokenizer, vocabulary.size),
        stored_tokens=opened.layout.stored_tokens,
        embedding_family=opened.embedding_family,
        projector=projector,
        read_image=(
            PictureReader(projector, most_together=context.cells_together) if projector else None
        ),
        adapters=Adapters(partial(LlamaAdapter, opened.model)),
        draft=draft or head,
    )


def _embedder_opener(opened: OpenedModel, threads: int, *, together: int = 0) -> OpenEmbedder:
    """What opens an embedder; of an encoder it takes at least ``together`` tokens at once."""
    settings = opened.request.settings
    # Cells of a model that reads in parts would take memory.
    least = 0 if opened.model.reads_in_parts else together

    def open_embedder(most_tokens: int) -> LlamaEmbedder:
        return LlamaEmbedder(
            opened.model,
            most_tokens=max(most_tokens, least),
            threads=threads,
            flash_attention=settings.flash_attention,
            kv_type=settings.kv_type,
        )

    return open_embedder


def _embedding_info(opened: OpenedModel, longest_text: int) -> EmbeddingInfo:
    family = opened.embedding_family
    return EmbeddingInfo(
        dimensions=opened.model.embedding_size,
        pooling=opened.model.pooling or "mean",
        context=longest_text,
        purposes=family.purposes if family else [],
        instruction=family is not None and family.takes_instruction,
    )


def _longest_text(opened: OpenedModel) -> int:
    """The most tokens of a text to embed."""
    context = opened.layout.context
    if opened.model.reads_in_parts:
        return context
    # An encoder may have one embedding per position, and none for later ones.
    return min(context, opened.model.context_train)

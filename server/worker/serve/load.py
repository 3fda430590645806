"""Loading a model in its worker: weights, KV cells, template, and a first decode to see it work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from server import __version__
from server.core.model_info import EmbeddingInfo, ModelInfo
from server.core.resources import templates_directory
from server.engine.batch import Batch
from server.engine.llama import (
    ContextSettings,
    LlamaContext,
    LlamaEmbedder,
    LlamaModel,
    LoadError,
    build_description,
)
from server.engine.sampling.matcher import GrammarCompiler, begin_compiler
from server.library.footprint import (
    outputs_per_batch,
    sequence_ids,
)
from server.library.model_header import read_model_at
from server.prompt.chat_model import ChatModel
from server.prompt.families.family import load_families
from server.prompt.messages.capabilities import Capabilities
from server.worker.protocol import Load, Progress
from server.worker.serve.hardware import physical_cores
from server.worker.serve.layout import gpu_layers, lay_out

_WARMUP_TOKENS = 64
# Embeddings beside generation have KV cells of their own, which no memory estimate counts: as many
# as the longest text needs, at most these. OpenAI's embedding models take as long texts.
_MOST_TOKENS_EMBEDDED_ASIDE = 8192


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to serve.

    ``context`` and ``compiler`` are None where it does not generate, ``open_embedder`` where only
    its vocabulary was loaded. That makes an embedder for so many tokens at a time, or raises
    LoadError. ``stored_tokens`` is the room for cached prefixes outside of the KV cells.
    """

    model: LlamaModel
    chat: ChatModel
    context: LlamaContext | None
    compiler: Future[GrammarCompiler] | None
    open_embedder: Callable[[int], LlamaEmbedder] | None
    stored_tokens: int
    info: ModelInfo


def load(request: Load, report: Callable[[Progress], None]) -> Loaded:
    """Load what ``request`` names. Raises LoadError, InvalidGguf or FamilyError with a reason."""
    settings = request.settings
    path = Path(request.path)
    header = read_model_at(path)
    model = LlamaModel(
        request.path,
        vocabulary_only=request.vocabulary_only,
        safe_mode=settings.safe_mode,
        gpu_layers=settings.gpu_layers,
        progress=lambda fraction: report(Progress(stage="weights", fraction=fraction)),
    )
    report(Progress(stage="template", fraction=1.0))
    # llama.cpp leaves arrays out of its metadata.
    tags = {"general.tags": " ".join(header.tags)}
    chat = ChatModel.open(
        model.metadata | tags,
        model.vocabulary,
        path.name,
        families=load_families([templates_directory(), *map(Path, settings.template_dirs)]),
        family=settings.family,
        kind=settings.kind,
        guard=settings.guard,
        sampling=settings.sampling,
    )
    layout = lay_out(header, model, settings)
    threads = settings.threads or physical_cores()
    if not (request.vocabulary_only or model.is_supported):
        raise LoadError(f"this {header.architecture} model neither generates text nor embeds it")
    # A stated pooling says that the model was made for embeddings.
    generates = model.pooling is None and (request.vocabulary_only or model.reads_in_parts)

    def open_embedder(most_tokens: int) -> LlamaEmbedder:
        return LlamaEmbedder(
            model,
            most_tokens=most_tokens,
            # Most of the processor stays with the answers that are being generated.
            threads=max(1, threads // 2) if generates else threads,
            flash_attention=settings.flash_attention,
            kv_type=settings.kv_type,
        )

    context = compiler = None
    if request.vocabulary_only:
        pass
    elif not generates:
        report(Progress(stage="warmup", fraction=1.0))
        _warm_up_embedder(open_embedder)
    else:
        # llama.cpp lays out and warms up meanwhile, for which Python is not needed.
        compiler = begin_compiler(model.vocabulary.guidance_tokenizer, model.vocabulary.size)
        ids = sequence_ids(settings.parallel, partial_removal=model.partial_removal)
        context = LlamaContext(
            model,
            ContextSettings(
                kv_cells=layout.kv_cells,
                sequence_ids=ids,
                batch_size=min(max(settings.batch_size, settings.parallel), layout.kv_cells),
                ubatch_size=settings.ubatch_size,
                outputs_per_batch=outputs_per_batch(ids),
                threads=threads,
                flash_attention=settings.flash_attention,
                kv_type=settings.kv_type,
            ),
        )
        report(Progress(stage="warmup", fraction=1.0))
        _warm_up(context)
    info = ModelInfo(
        model_id=request.model_id,
        path=request.path,
        architecture=header.architecture,
        parameters=model.parameters,
        quantization=header.quantization,
        file_bytes=header.file_bytes,
        vocabulary=model.vocabulary.size,
        kind=chat.kind,
        kind_reasons=chat.kind_reasons,
        context=layout.context,
        context_source=layout.source,
        context_train=model.context_train,
        kv_cells=context.kv_cells if context else 0,
        parallel=settings.parallel,
        threads=threads,
        gpu_layers=gpu_layers(model, settings),
        family=chat.family,
        template_source=chat.template_source,
        template_sha256=chat.template_sha256,
        capabilities=_verdicts(chat.capabilities),
        template_variables=chat.template_variables,
        generates=generates,
        embedding=None
        if request.vocabulary_only
        else _embedding(model, layout.context, generates=generates),
        reply_format=chat.reply_format,
        sampling=chat.sampling,
        guard=settings.guard,
        safe_mode=settings.safe_mode,
        fingerprint=_fingerprint(path, chat.template_sha256),
        memory_bytes=layout.memory_bytes,
        warnings=chat.warnings,
    )
    return Loaded(
        model=model,
        chat=chat,
        context=context,
        compiler=compiler,
        open_embedder=None if request.vocabulary_only else open_embedder,
        stored_tokens=layout.stored_tokens,
        info=info,
    )


def _verdicts(capabilities: Capabilities) -> dict[str, bool]:
    """What the template can and cannot express, by name."""
    found = msgspec.structs.asdict(capabilities)
    return {name: verdict for name, verdict in found.items() if isinstance(verdict, bool)}


def _warm_up(context: LlamaContext) -> None:
    """Decode a few tokens: where this build does not suit this CPU, the process dies here."""
    batch = Batch(_WARMUP_TOKENS)
    count = min(_WARMUP_TOKENS, context.batch_size)
    batch.add(0, np.zeros(count, dtype=np.int32), 0, count - 1)
    context.decode(batch)
    context.clear()


def _warm_up_embedder(open_embedder: Callable[[int], LlamaEmbedder]) -> None:
    """Do the same for a model that does not generate."""
    embedder = open_embedder(_WARMUP_TOKENS)
    embedder.embed([[0] * _WARMUP_TOKENS])
    embedder.close()


def _embedding(model: LlamaModel, context: int, *, generates: bool) -> EmbeddingInfo:
    # An encoder may have one embedding per position, and none for later ones.
    limit = context if model.reads_in_parts else min(context, model.context_train)
    return EmbeddingInfo(
        dimensions=model.embedding_size,
        pooling=model.pooling or "mean",
        context=min(limit, _MOST_TOKENS_EMBEDDED_ASIDE) if generates else limit,
    )


def _fingerprint(path: Path, template_sha256: str) -> str:
    """Changes when the model file, its template or the build changes."""
    status = path.stat()
    facts = (status.st_size, status.st_mtime_ns, template_sha256, build_description(), __version__)
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]

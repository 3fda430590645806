"""What a model file's header tells about the model before it is loaded."""

from __future__ import annotations

from pathlib import Path

from server.core.model_info import OWN_HEAD, ModelOutline
from server.core.model_kind import KindVerdict, detect_kind, named_for_ranking
from server.core.worker_settings import WorkerSettings
from server.library.header import GgufHeader
from server.library.mtp import drafts_itself

_TEMPLATE = "tokenizer.chat_template"
# llama.cpp's LLAMA_POOLING_TYPE_RANK.
_RANK = 4


def outline(header: GgufHeader, file_name: str, settings: WorkerSettings) -> ModelOutline:
    """The facts in the ``header`` of the model in ``file_name``, served with ``settings``."""
    verdict = _kind(header, file_name, settings)
    context, source = stated_context(header.context_length or 0, settings)
    # Embedding models and rerankers state how they pool, but for rerankers whose head was left out;
    # encoders let all tokens attend to each other.
    architecture = header.architecture
    pooling = header.size("pooling_type")
    ranks = pooling == _RANK or (not pooling and named_for_ranking(header.name or "", file_name))
    causal = header.metadata.get(f"{architecture}.attention.causal", True) is not False
    generates = causal and not pooling and not ranks
    return ModelOutline(
        architecture=architecture,
        parameters=header.tensors.parameters,
        quantization=header.quantization,
        file_bytes=header.file_bytes,
        vocabulary=header.vocabulary or 0,
        kind=verdict.kind,
        kind_reasons=verdict.reasons,
        context=context,
        context_source=f"{source}; memory may bound it",
        context_train=header.context_length or 0,
        generates=generates,
        ranks=ranks,
        projector=settings.projector.kind if settings.projector else None,
        draft=_draft(header, settings) if generates else None,
    )


def _draft(header: GgufHeader, settings: WorkerSettings) -> str | None:
    """What drafts for a model that generates."""
    if settings.draft:
        return Path(settings.draft.path).name
    return OWN_HEAD if drafts_itself(header, settings) else None


def _kind(header: GgufHeader, file_name: str, settings: WorkerSettings) -> KindVerdict:
    """The model's kind: the configured one, or else what the header speaks for."""
    texts = {
        key: str(value) for key, value in header.metadata.items() if isinstance(value, str | int)
    }
    has_template = any(
        value.strip()
        for key, value in texts.items()
        if key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")
    )
    tags = {"general.tags": " ".join(header.tags)}
    verdict = detect_kind(texts | tags, file_name, header.eos_text, has_template=has_template)
    return verdict if settings.kind is None else verdict.configured(settings.kind)


def stated_context(trained: int, settings: WorkerSettings) -> tuple[int, str]:
    """The most tokens of one request, as settings and file state it, and where that comes from."""
    context, source = (
        (settings.ctx_size, "setting ctx_size")
        if settings.ctx_size
        else (trained, "what the model was trained with")
    )
    if settings.kv_tokens and settings.kv_tokens < context:
        return settings.kv_tokens, f"setting kv_tokens, which bounds {source} ({context})"
    return context, source

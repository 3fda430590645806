"""What drafts for a model: a smaller one, or its own head."""

from __future__ import annotations

from pathlib import Path

import msgspec

from server.core.worker_settings import DraftFile
from server.engine.backend import DecodeFailed, NoCellsLeft
from server.engine.llama import LlamaContext, LlamaModel, LoadError
from server.engine.llama.vocabulary import LlamaVocabulary
from server.worker.protocol import Progress
from server.worker.serve.contexts import open_context, open_head, warm_up
from server.worker.serve.opening import OpenedModel, Report


def open_draft(file: DraftFile, opened: OpenedModel, *, cells: int, report: Report) -> LlamaContext:
    """Load the model in ``file``, with as many KV cells as the model that it drafts for has.

    Raises:
        LoadError: it cannot draft for that model; the message says why, and the way out.
    """
    settings = opened.request.settings
    try:
        model = LlamaModel(
            file.path,
            safe_mode=settings.safe_mode,
            gpu_layers=settings.gpu_layers,
            progress=lambda fraction: report(Progress(stage="weights", fraction=fraction)),
        )
        if problem := _problem(model, opened.model.vocabulary):
            raise LoadError(problem)
        # The cells of a draft's prefixes are cut back to any token.
        kept = msgspec.structs.replace(settings, swa_full=True)
        return open_context(model, kept, cells=cells, threads=opened.threads)
    except LoadError as error:
        raise LoadError(
            f"the draft model {Path(file.path).name} cannot be used: {error}; without the key "
            f"draft in its TOML file, {opened.request.model_id} is served"
        ) from error


def open_own_head(opened: OpenedModel, *, cells: int) -> tuple[LlamaContext | None, str | None]:
    """Where the model's own head guesses, with so many KV cells; else why it does not.

    Neither, if it has none.
    """
    if not opened.model.has_head:
        return None, opened.head_problem
    try:
        settings = opened.request.settings
        head = open_head(opened.model, settings, cells=cells, threads=opened.threads)
        warm_up(head)
    except (LoadError, NoCellsLeft, DecodeFailed) as error:
        return None, str(error)
    return head, None


def _problem(model: LlamaModel, vocabulary: LlamaVocabulary) -> str | None:
    """Why the model cannot draft for one with this vocabulary, if it cannot."""
    if not model.is_supported or model.pooling is not None or model.made_to_rank:
        return "it does not generate"
    if not model.partial_removal:
        return "its state cannot be cut back where a guess was wrong"
    if not model.reads_in_parts:
        return "it is an encoder"
    token = _first_difference(model.vocabulary, vocabulary)
    if token is not None:
        return (
            f"it has another vocabulary: token {token} is {model.vocabulary.text(token)!r}, "
            f"not {vocabulary.text(token)!r}"
        )
    return None


def _first_difference(one: LlamaVocabulary, other: LlamaVocabulary) -> int | None:
    """The first token that differs; at the end, one vocabulary may have more than the other.

    Models of one family often have different numbers of unused tokens there.
    """
    shared = range(min(one.size, other.size))
    return next((token for token in shared if one.text(token) != other.text(token)), None)

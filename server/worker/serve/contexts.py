"""Contexts in which a model generates."""

from __future__ import annotations

import numpy as np

from server.core.worker_settings import WorkerSettings
from server.engine.batch import Batch
from server.engine.llama import ContextSettings, LlamaContext, LlamaModel
from server.library.footprint import head_batch, outputs_per_batch, sequence_ids
from server.library.windows import window_cells

WARMUP_TOKENS = 64


def keeps_prefixes(model: LlamaModel, settings: WorkerSettings, cells: int) -> bool:
    """Whether states in a context of so many KV cells can be cut back to any earlier token."""
    if model.partial_removal and model.window is not None:
        ids = sequence_ids(settings.parallel)
        return window_cells(model.window, cells, ids, settings) == cells
    return model.partial_removal


def open_context(
    model: LlamaModel, settings: WorkerSettings, *, cells: int, threads: int
) -> LlamaContext:
    """A context of so many KV cells for all the sequences that ``settings`` let run together.

    Raises:
        LoadError: llama.cpp cannot create it.
    """
    removable = keeps_prefixes(model, settings, cells)
    windowed = removable and model.window is not None
    ids = sequence_ids(settings.parallel, partial_removal=removable, windowed=windowed)
    return LlamaContext(
        model,
        ContextSettings(
            kv_cells=cells,
            sequence_ids=ids,
            batch_size=min(max(settings.batch_size, settings.parallel), cells),
            ubatch_size=max(settings.ubatch_size, settings.parallel),
            outputs_per_batch=outputs_per_batch(2 * ids if windowed else ids),
            threads=threads,
            flash_attention=settings.flash_attention,
            kv_type=settings.kv_type,
            swa_full=removable,
        ),
    )


def open_head(
    model: LlamaModel, settings: WorkerSettings, *, cells: int, threads: int
) -> LlamaContext:
    """A context of so many KV cells in which the own head of ``model`` guesses.

    Raises:
        LoadError: llama.cpp cannot create it.
    """
    tokens = head_batch(settings.parallel)
    return LlamaContext(
        model,
        ContextSettings(
            kv_cells=cells,
            sequence_ids=settings.parallel,
            batch_size=tokens,
            ubatch_size=tokens,
            outputs_per_batch=settings.parallel,
            threads=threads,
            flash_attention=settings.flash_attention,
            kv_type=settings.kv_type,
        ),
        is_head=True,
    )


def warm_up(context: LlamaContext) -> None:
    """Decode a few tokens: where this build does not suit this CPU, the process dies here."""
    batch = Batch(WARMUP_TOKENS, state_width=context.state_width if context.is_head else 0)
    batch.wants_states = context.is_head
    count = min(WARMUP_TOKENS, context.batch_size)
    batch.add(0, np.zeros(count, dtype=np.int32), 0, count - 1)
    context.decode(batch)
    context.clear()

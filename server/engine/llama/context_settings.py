"""The sizes of a context in which a model generates."""

from __future__ import annotations

import llama_cpp
import msgspec

from server.core.worker_settings import FlashAttention, KvType
from server.engine.llama.context_parameters import context_parameters


class ContextSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a context has room for, and how it computes.

    ``sequence_ids`` is at most 256 (LLAMA_MAX_SEQ) and ``outputs_per_batch`` at least as many.
    ``swa_full``: sliding-window layers keep all cells. Each id counts twice then (see
    `server.engine.llama.window_guard`). Else there must be ``kv_cells`` for a window of each id
    and a physical batch, since that many cells these layers get.
    """

    kv_cells: int
    sequence_ids: int
    batch_size: int
    ubatch_size: int
    outputs_per_batch: int
    threads: int
    flash_attention: FlashAttention
    kv_type: KvType
    swa_full: bool = True


def parameters_of(
    settings: ContextSettings, window: int | None, *, is_head: bool
) -> llama_cpp.llama_context_params:
    """llama.cpp's parameters of a context whose layers may look back a ``window`` of tokens."""
    parameters = context_parameters(
        threads=settings.threads,
        flash_attention=settings.flash_attention,
        kv_type=settings.kv_type,
    )
    parameters.swa_full = window is None or settings.swa_full
    has_twins = window is not None and settings.swa_full
    parameters.n_ctx = settings.kv_cells
    parameters.n_ubatch = min(settings.ubatch_size, settings.batch_size)
    # Between the parts of a divided batch, the guard could not follow, and cells would be taken
    # that are needed again where drafts are removed.
    parameters.n_batch = parameters.n_ubatch if window else settings.batch_size
    parameters.n_seq_max = settings.sequence_ids * (2 if has_twins else 1)
    parameters.n_outputs_max = settings.outputs_per_batch
    if is_head:
        parameters.ctx_type = llama_cpp.LLAMA_CONTEXT_TYPE_MTP
    return parameters

"""The sizes of a context in which a model generates."""

from __future__ import annotations

import msgspec

from server.core.worker_settings import FlashAttention, KvType


class ContextSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a context has room for, and how it computes.

    ``sequence_ids`` is at most 256 (LLAMA_MAX_SEQ) and ``outputs_per_batch`` at least as many.
    ``swa_full``: sliding-window layers keep all cells. Each id counts twice then (see
    `server.engine.llama.window_guard`). Else there must be more ``kv_cells`` than one window for
    each id and a physical batch, since that many cells these layers get.
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

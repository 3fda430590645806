"""Settings that a worker gets for its model."""

from __future__ import annotations

from typing import Literal

import msgspec

from server.core.model_info import ModelKind
from server.core.sampling import Sampling

FlashAttention = Literal["auto", "on", "off"]
KvType = Literal["f16", "q8_0", "q4_0", "f32"]
"""Number format of the KV cells, by its name in ggml."""


ENCODINGS_BYTES = 128 << 20
"""Encoded images that a worker keeps in memory, in case they come again; a choice: about 50 of
Gemma 3's."""

IMAGE_FILES_BYTES = 32 << 20
"""Files of images that a worker holds, in case they come again; a choice: about ten photos."""


HEAD_STATES = 128
"""Hidden states of each running sequence that are kept for the model's own head (MTP), which reads
as many tokens of a prompt at most; a choice: 2.5 MiB where a state has 5,120 numbers."""


class ProjectorFile(msgspec.Struct, frozen=True, kw_only=True):
    """The vision encoder beside a model: its file, its type, and the memory that it needs."""

    path: str
    kind: str
    memory_bytes: int


class DraftFile(msgspec.Struct, frozen=True, kw_only=True):
    """A smaller model that drafts: its file, and the memory that it needs.

    ``memory_bytes`` come on top of ``cell_bytes`` for each KV cell of the model that it drafts for.
    """

    path: str
    memory_bytes: int
    cell_bytes: int


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker is told about how to serve its model; None leaves it to the worker.

    ``ctx_size`` is the most tokens of one request, ``kv_tokens`` the KV cells shared by all.
    ``template_dirs`` are searched in order for families. ``itl_budget_ms`` bounds the inter-token
    latency of running streams while a prompt is prefilled. ``memory_bytes`` is what the model may
    use in all (weights and KV cells). Sliding-window layers keep all cells with ``swa_full``, which
    drafts keep anyway. Prefixes take ``prefix_disk_bytes`` in ``prefixes_dir`` at
    most, 0 for none; ``prefix_disk_daily_bytes`` are written there in a day at most, and files go
    that were unused for ``prefix_disk_days``. At its end, a worker writes for ``drain_seconds`` at
    most. Without a ``projector``, the model sees no images; without a ``draft``, only what can be
    looked up is drafted.
    """

    ctx_size: int | None = None
    kv_tokens: int | None = None
    parallel: int = 16
    queue_size: int = 256
    threads: int | None = None
    gpu_layers: int | None = None
    batch_size: int = 512
    ubatch_size: int = 512
    flash_attention: FlashAttention = "auto"
    kv_type: KvType = "f16"
    swa_full: bool = True
    itl_budget_ms: int = 200
    prompt_lookup: bool = True
    guard: bool = True
    strict_parameters: bool = False
    family: str | None = None
    kind: ModelKind | None = None
    sampling: Sampling = Sampling()
    template_dirs: list[str] = []
    memory_bytes: int | None = None
    safe_mode: bool = False
    prefix_disk_bytes: int = 0
    prefix_disk_daily_bytes: int = 0
    prefix_disk_days: float = 30.0
    prefixes_dir: str = ""
    drain_seconds: float = 10.0
    projector: ProjectorFile | None = None
    draft: DraftFile | None = None

"""Which layers of a model have a sliding window, and how many KV cells those keep."""

from __future__ import annotations

from server.core.worker_settings import WorkerSettings
from server.library.header import GgufHeader

# One layer in so many has no window where the file does not say which have one; llama.cpp knows by
# the architecture (``load_swa_pattern`` in its sources, b11434). It is the last of them, or the
# first.
_PERIODS = {
    "afmoe": 4,
    "cohere2": 4,
    "cohere2moe": 4,
    "exaone-moe": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "laguna": 4,
    "llama4": 4,
    "mellum": 4,
    "muse-glimmer": 4,
    "olmo2": 4,
    "plamo3": 8,
    "smallthinker": 4,
}
_FIRST_IS_FULL = {"cohere2moe", "laguna", "smallthinker"}
# llama.cpp gives layers with a window multiples of as many cells (``llama_kv_cache_iswa``).
_PADDING = 256


def window_layers(header: GgufHeader, layers: int) -> list[bool]:
    """Which layers have a window; none, where neither the file nor its architecture tells."""
    key = f"{header.architecture}.attention.sliding_window_pattern"
    pattern = header.metadata.get(key)
    if isinstance(pattern, list):
        return [bool(item) for item in pattern] if len(pattern) == layers else [False] * layers
    if not header.sliding_window:
        return [False] * layers
    period = header.integer(key) or _PERIODS.get(header.architecture, 1)
    full = 0 if header.architecture in _FIRST_IS_FULL else period - 1
    return [layer % period != full for layer in range(layers)]


def window_cells(window: int, cells: int, sequence_ids: int, settings: WorkerSettings) -> int:
    """How many of ``cells`` KV cells a layer keeps that looks back ``window`` tokens.

    All of them with ``swa_full``; else what llama.cpp keeps, a window for each sequence id and a
    physical batch, if that is less.
    """
    if settings.swa_full:
        return cells
    together = max(min(settings.ubatch_size, settings.batch_size), settings.parallel)
    fewer = window * sequence_ids + together
    return min(cells, -(-fewer // _PADDING) * _PADDING)

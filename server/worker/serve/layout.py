"""How long a request may get, and how much KV memory there is, within the memory allowed."""

from __future__ import annotations

import msgspec

from server.core.worker_settings import WorkerSettings
from server.engine.llama import LlamaModel, LoadError, gpu_available
from server.library.footprint import (
    cells_in_windows,
    estimate_memory,
    least_stored_tokens,
    most_stored_tokens,
)
from server.library.header import GgufHeader
from server.library.outline import stated_context
from server.worker.serve.contexts import keeps_prefixes

# A model with less context than this is of no use; it is refused instead. The number is a choice.
_LEAST_CONTEXT = 256


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens a request may have, and how many fit into memory for all requests together.

    ``source`` says what bounds ``context``, the most tokens of one request. ``stored_tokens`` is
    the room for cached prefixes in host memory, beside the ``kv_cells``. ``memory_bytes`` estimates
    what the model takes in all.
    """

    context: int
    source: str
    kv_cells: int
    stored_tokens: int
    memory_bytes: int


def lay_out(header: GgufHeader, model: LlamaModel, settings: WorkerSettings) -> Layout:
    """The layout that ``settings`` ask for, cut down to the memory they allow.

    Raises LoadError where that leaves no useful context.
    """
    context, source = stated_context(model.context_train, settings)
    kv_cells = settings.kv_tokens or context
    allowed = settings.memory_bytes
    if allowed is not None and settings.kv_tokens is None:
        fitting = _fitting_cells(header, settings, kv_cells, allowed)
        if fitting < min(kv_cells, _LEAST_CONTEXT):
            needed = estimate_memory(header, _LEAST_CONTEXT, settings)
            raise LoadError(
                f"the model needs at least {needed} bytes of memory; {allowed} are allowed"
            )
        if fitting < kv_cells:
            source = f"memory, which bounds {source} ({context})"
            more = _fitting_cells(
                header, msgspec.structs.replace(settings, swa_full=False), kv_cells, allowed
            )
            if more > fitting:
                source += f"; swa_full = false makes room for {more}"
            kv_cells = fitting
    stored_tokens = _stored_tokens(header, model, settings, kv_cells)
    return Layout(
        context=min(context, kv_cells),
        source=source,
        kv_cells=kv_cells,
        stored_tokens=stored_tokens,
        memory_bytes=estimate_memory(header, kv_cells, settings, stored_tokens=stored_tokens),
    )


def gpu_layers(model: LlamaModel, settings: WorkerSettings) -> int:
    """How many of the model's layers llama.cpp puts on a GPU."""
    if not gpu_available():
        return 0
    return model.layers if settings.gpu_layers is None else min(model.layers, settings.gpu_layers)


def _stored_tokens(
    header: GgufHeader, model: LlamaModel, settings: WorkerSettings, kv_cells: int
) -> int:
    """The room for cached prefixes in host memory, in tokens.

    There is none for states that cannot be cut back to a prefix, and none beside a GPU,
    where attention passes over unused cells fast and copying them to host memory is slow.
    """
    if not keeps_prefixes(model, settings, kv_cells) or gpu_layers(model, settings):
        return 0
    if settings.memory_bytes is None:
        return least_stored_tokens(kv_cells)
    return most_stored_tokens(header, kv_cells, settings, settings.memory_bytes)


def _fitting_cells(
    header: GgufHeader, settings: WorkerSettings, wanted: int, memory_bytes: int
) -> int:
    """The most KV cells, up to ``wanted``, with which the model stays within ``memory_bytes``."""

    def fits(cells: int) -> bool:
        return estimate_memory(header, cells, settings) <= memory_bytes

    # With one cell more, sliding windows no longer keep all, and the model takes less memory.
    most_kept = cells_in_windows(header, wanted, settings)
    low, high = 0, most_kept
    if most_kept < wanted and fits(most_kept + 1):
        low, high = most_kept + 1, wanted
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low

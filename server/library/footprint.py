"""How much memory a model will need, from its header and settings alone.

    weights      tensor data, as it is on disk: llama.cpp maps or copies it unchanged
    KV cells     cells x sum over layers of KV heads x (key + value length) x bytes per value
    store        the same, for the cached prefixes in host memory
    state        sequences x recurrent layers x (convolution window + state) x 4 bytes
    logits       rows per batch x vocabulary x 4 bytes, where a step hands them out
    compute      the same again or, if that is more, tokens per physical batch x
                 (4 x embedding + 3 x feed-forward) x 4 bytes plus the attention mask
    projector    weights of the vision encoder beside the model, its activations, kept encodings
    draft        the first six of the model that drafts, without a store; for the model's own head,
                 whose weights and cells are among the model's, logits, compute, hidden states
    process      the worker itself: interpreter, libraries, vocabulary

Layers with a sliding window count in full where the engine keeps all their cells (``swa_full``), so
that any prefix can be reused from any point. Otherwise they have the cells that
`server.library.windows` tells, and no cached prefixes are in host memory.

For plain transformers on a CPU the first four terms are exact (the store fills with use). The next
two follow the buffers that llama.cpp reports. With 8,192 cells and 16 parallel sequences,
SmolLM2-135M reserves 34, 51 and 95 MiB for 512, 1,024 and 2,048 tokens per physical batch, where
the estimate is 48, 67 and 110 MiB; logits rows that few steps need make the difference. The size of
a logical batch changes nothing.
"""

from __future__ import annotations

import msgspec

from server.core.worker_settings import (
    ENCODINGS_BYTES,
    HEAD_STATES,
    IMAGE_FILES_BYTES,
    DraftFile,
    KvType,
    WorkerSettings,
)
from server.library.header import GgufHeader
from server.library.mtp import drafts_itself
from server.library.quantization import TENSOR_TYPES, TensorType
from server.library.windows import window_cells, window_layers

_TYPES_BY_NAME: dict[str, TensorType] = {kind.name: kind for kind in TENSOR_TYPES.values()}
_FLOAT_BYTES = 4
_MASK_BYTES = 2
# Rows of logits for drafts and scored prompts, also where few sequences run. A choice.
_LEAST_OUTPUTS = 128
# llama.cpp's own limit, LLAMA_MAX_SEQ.
_MOST_SEQUENCE_IDS = 256
# Ids for cached prefixes beside those of running sequences. A choice: each costs a row of logits.
_CACHED_SEQUENCES = 24
# Resident with only a vocabulary loaded: 69 MiB for 49,152 tokens (SmolLM2), 100 MiB for 262,144
# (gemma-3).
_PROCESS_BYTES = 96 << 20
# More cells than there are where the compute buffer begins to grow with them.
_MANY_CELLS = 1 << 22
# Sizes in a hostile header may multiply to numbers that no message can carry.
_MOST_BYTES = (1 << 63) - 1


def estimate_memory(
    header: GgufHeader, cells: int, settings: WorkerSettings, *, stored_tokens: int | None = None
) -> int:
    """Bytes needed to serve the model as ``settings`` say, with ``cells`` KV cells.

    ``stored_tokens`` is the room for cached prefixes in host memory, by default the least.
    """
    stored = stored_tokens
    if stored is None:
        keeps_all = cells_in_windows(header, cells, settings) == cells
        stored = least_stored_tokens(cells) if keeps_all else 0
    total = (
        _own_bytes(header, cells, stored, settings)
        + (settings.projector.memory_bytes if settings.projector else 0)
        + (_draft_bytes(settings.draft, cells) if settings.draft else 0)
        + (_head_bytes(header, cells, settings) if drafts_itself(header, settings) else 0)
        + _PROCESS_BYTES
    )
    return min(total, _MOST_BYTES)


def _own_bytes(header: GgufHeader, cells: int, stored: int, settings: WorkerSettings) -> int:
    """The first six terms."""
    beyond_windows = cells - cells_in_windows(header, cells, settings)
    return (
        header.tensors.data_bytes
        + kv_bytes(header, cells + stored, settings.kv_type)
        - _bytes(beyond_windows * _kv_values(header)[1], settings.kv_type)
        + sequence_ids(settings.parallel) * _state_values(header) * _FLOAT_BYTES
        + buffer_bytes(header, cells, settings)
    )


def _draft_bytes(draft: DraftFile, cells: int) -> int:
    return draft.memory_bytes + cells * draft.cell_bytes


def _head_bytes(header: GgufHeader, cells: int, settings: WorkerSettings) -> int:
    """Bytes that a model's own head takes beside its weights and cells.

    A step gives it the states of all its tokens, of which the last are kept for each sequence.
    """
    state = (header.embedding_length or 0) * _FLOAT_BYTES
    tokens = head_batch(settings.parallel)
    logits = settings.parallel * (header.vocabulary or 0) * _FLOAT_BYTES
    layers = tokens * (_layer_bytes(header) + cells * _cell_bytes(header, settings))
    states = (settings.batch_size + tokens + settings.parallel * HEAD_STATES) * state
    return logits + max(logits, layers) + states


def head_batch(parallel: int) -> int:
    """How many tokens a model's own head computes at once, beside ``parallel`` sequences."""
    return max(HEAD_STATES, parallel)


def draft_memory(header: GgufHeader, settings: WorkerSettings) -> tuple[int, int]:
    """Bytes that a model takes to draft beside another, and how many more for each KV cell.

    ``settings`` are the other's, but for ``swa_full``: all cells are kept. The compute buffer grows
    with cells only from some number on; it is counted as if it did from the first.
    """
    settings = msgspec.structs.replace(settings, swa_full=True)
    fixed, many = (
        min(_own_bytes(header, cells, 0, settings), _MOST_BYTES) for cells in (0, _MANY_CELLS)
    )
    return fixed, max(0, -(-(many - fixed) // _MANY_CELLS))


def projector_memory(header: GgufHeader) -> int:
    """Bytes that a vision encoder takes beside its model: weights, activations, its results.

    Activations are counted for a picture of the encoder's own size; encoders that take any size
    need more for larger ones.
    """
    side = (header.integer("clip.vision.image_size") or 0) // max(
        1, header.integer("clip.vision.patch_size") or 1
    )
    width = header.integer("clip.vision.embedding_length") or 0
    feed_forward = header.integer("clip.vision.feed_forward_length") or 0
    activations = side**2 * (4 * width + 3 * feed_forward) * _FLOAT_BYTES
    kept = ENCODINGS_BYTES + IMAGE_FILES_BYTES
    return min(header.tensors.data_bytes + activations + kept, _MOST_BYTES)


def sequence_ids(parallel: int, *, partial_removal: bool = False, windowed: bool = False) -> int:
    """How many sequence ids a context has, for running sequences and for cached prefixes.

    Without ``partial_removal`` (recurrent models, sliding windows that do not keep all cells) each
    id takes a whole state, so there are fewer. With sliding windows that keep all, each has a twin
    (`server.engine.llama.window_guard`).
    """
    cached = _CACHED_SEQUENCES if partial_removal else min(parallel, _CACHED_SEQUENCES)
    return min(_MOST_SEQUENCE_IDS // 2 if windowed else _MOST_SEQUENCE_IDS, parallel + cached)


def outputs_per_batch(ids: int) -> int:
    """The most rows of logits that one step may give, with ``ids`` sequence ids, twins included.

    llama.cpp lays out its graph for at least one row per id, and aborts where the limit is lower.
    """
    return max(_LEAST_OUTPUTS, ids)


def least_stored_tokens(cells: int) -> int:
    """Room, in tokens, for cached prefixes in host memory: a quarter of the ``cells``, a choice."""
    return cells // 4


def most_stored_tokens(
    header: GgufHeader, cells: int, settings: WorkerSettings, memory_bytes: int
) -> int:
    """The same where all of ``memory_bytes`` may be used; at most as many tokens as ``cells``.

    Cells that no running sequence uses slow all answers, so cached prefixes had better be in host
    memory.
    """
    least = least_stored_tokens(cells)
    spare = memory_bytes - estimate_memory(header, cells, settings)
    return min(cells, least + max(0, spare) // max(1, kv_bytes(header, 1, settings.kv_type)))


def kv_bytes(header: GgufHeader, cells: int, kv_type: KvType) -> int:
    """Bytes of ``cells`` KV cells."""
    return _bytes(cells * sum(_kv_values(header)), kv_type)


def _bytes(values: int, kv_type: KvType) -> int:
    kind = _TYPES_BY_NAME[kv_type.upper()]
    return values * kind.block_bytes // kind.block_elements


def _kv_values(header: GgufHeader) -> tuple[int, int]:
    """Numbers that one KV cell holds, keys and values of the layers without and with windows."""
    heads = header.layer_sizes("attention.head_count") or []
    kv_heads = header.layer_sizes("attention.head_count_kv") or heads
    head_length = (header.embedding_length or 0) // max([1, *heads])
    key = header.size("attention.key_length") or head_length
    value = header.size("attention.value_length") or head_length
    window_key = header.size("attention.key_length_swa") or key
    window_value = header.size("attention.value_length_swa") or value
    in_window = window_layers(header, len(kv_heads))
    # Trailing layers may read the cache of an earlier one (gemma3n, gemma4).
    own = len(kv_heads) - (header.size("attention.shared_kv_layers") or 0)
    # Where only each n-th layer has attention (qwen3next), the others have a recurrent state.
    interval = header.size("full_attention_interval") or 1
    full = windowed = 0
    for layer, count in enumerate(kv_heads):
        if layer < own and (layer + 1) % interval == 0:
            if in_window[layer]:
                windowed += count * (window_key + window_value)
            else:
                full += count * (key + value)
    return full, windowed


def cells_in_windows(header: GgufHeader, cells: int, settings: WorkerSettings) -> int:
    """Cells of each layer with a sliding window, as the engine will keep them."""
    has_windows = _kv_values(header)[1] > 0  # not Phi 3, whose window llama.cpp leaves out
    if header.sliding_window is None or not has_windows or _state_values(header):
        return cells
    ids = sequence_ids(settings.parallel)
    return window_cells(header.sliding_window, cells, ids, settings)


def _state_values(header: GgufHeader) -> int:
    """Numbers that one sequence's recurrent state holds, all layers together.

    Mamba, RWKV and short-convolution layers as in llama.cpp's ``n_embd_r`` and ``n_embd_s``; every
    layer of a hybrid is counted as if it had one.
    """
    embedding = header.embedding_length or 0
    values = 0
    if inner := header.size("ssm.inner_size"):
        state = header.size("ssm.state_size") or 0
        window = max((header.size("ssm.conv_kernel") or 1) - 1, 0)
        values += window * (inner + 2 * (header.size("ssm.group_count") or 0) * state)
        values += state * inner
    if head := header.size("wkv.head_size"):
        shifts = header.size("token_shift_count")
        values += embedding * (head + (2 if shifts is None else shifts))
    if convolution := header.size("shortconv.l_cache"):
        values += embedding * (convolution - 1)
    return values * (header.block_count or 0)


def buffer_bytes(header: GgufHeader, cells: int, settings: WorkerSettings) -> int:
    """Bytes of llama.cpp's compute buffer and of the logits that a step hands out."""
    fewer = cells_in_windows(header, cells, settings)
    guarded = header.sliding_window is not None and fewer == cells
    ids = sequence_ids(settings.parallel, partial_removal=fewer == cells, windowed=guarded)
    rows = outputs_per_batch(2 * ids if guarded else ids)
    logits = rows * (header.vocabulary or 0) * _FLOAT_BYTES
    tokens = min(settings.ubatch_size, max(settings.batch_size, settings.parallel))
    cell_bytes = cells * _cell_bytes(header, settings) - (cells - fewer) * _mask_bytes(settings)
    layers = tokens * (_layer_bytes(header) + cell_bytes)
    # llama.cpp computes the logits where the layers' activations were.
    return logits + max(logits, layers)


def _layer_bytes(header: GgufHeader) -> int:
    """Bytes that a layer's activations take per token."""
    dense = max([0, *(header.layer_sizes("feed_forward_length") or [])])
    experts = header.size("expert_used_count") or 0
    expert = header.size("expert_feed_forward_length") or dense
    feed_forward = max(dense, experts * expert)
    return (4 * (header.embedding_length or 0) + 3 * feed_forward) * _FLOAT_BYTES


def _cell_bytes(header: GgufHeader, settings: WorkerSettings) -> int:
    """Bytes that attention takes per token and cell: its masks, and scores where they are kept.

    Layers with a sliding window have a mask of their own. Flash attention takes masks in half
    precision, and keeps no scores.
    """
    masks = (2 if header.sliding_window else 1) * _mask_bytes(settings)
    if settings.flash_attention != "off":
        return masks
    heads = max([0, *(header.layer_sizes("attention.head_count") or [])])
    return masks + heads * _FLOAT_BYTES


def _mask_bytes(settings: WorkerSettings) -> int:
    """Bytes of a mask per token and cell."""
    return _FLOAT_BYTES if settings.flash_attention == "off" else _MASK_BYTES

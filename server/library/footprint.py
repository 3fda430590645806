"""What a model will need in memory, from its header alone.

    weights    tensor data, as it is on disk (llama.cpp maps or copies it unchanged)
    KV cells   cells x sum over layers of KV heads x (key length + value length) x bytes per value
    store      the same for the cached prefixes that wait outside of the cells, at least a quarter
    state      sequences x recurrent layers x (convolution window + state) x 4 bytes
    logits     2 x rows per batch x vocabulary x 4 bytes: where they are computed, and handed out
    compute    tokens per batch x 8 x embedding x 4 bytes: the widest activations
    process    the worker itself: interpreter, libraries, vocabulary

Layers with a sliding window count in full, since the engine keeps their whole cache: otherwise a
prefix could not be taken up again. For plain transformers on a CPU the first four terms are exact
(the store fills with use), and the next two are a little above what llama.cpp says it reserves,
with flash attention.
"""

from __future__ import annotations

from server.core.worker_settings import KvType
from server.library.header import GgufHeader
from server.library.quantization import TENSOR_TYPES, TensorType

_TYPES_BY_NAME: dict[str, TensorType] = {kind.name: kind for kind in TENSOR_TYPES.values()}
_FLOAT_BYTES = 4
# Tokens of a physical batch, as the worker has them by default.
_BATCH_TOKENS = 512
# Rows of logits for drafts and scored prompts, also where few sequences run.
_LEAST_OUTPUTS = 128
# llama.cpp's own limit, LLAMA_MAX_SEQ.
_MOST_SEQUENCE_IDS = 256
# Ids for cached prefixes beside those of running sequences; each costs a row of logits as well.
_CACHED_SEQUENCES = 24
_PROCESS_BYTES = 96 << 20
# Sizes in a hostile header multiply to numbers that no message can carry.
_MOST_BYTES = (1 << 63) - 1


def estimate_memory(
    header: GgufHeader,
    cells: int,
    kv_type: KvType = "f16",
    parallel: int = 1,
    *,
    stored_tokens: int | None = None,
) -> int:
    """Bytes needed with so many KV ``cells``, to run ``parallel`` sequences together.

    ``stored_tokens`` is the room of the store, by default the least.
    """
    stored = least_stored_tokens(cells) if stored_tokens is None else stored_tokens
    total = (
        header.tensors.data_bytes
        + kv_bytes(header, cells + stored, kv_type)
        + sequence_ids(parallel) * _state_values(header) * _FLOAT_BYTES
        + _compute_bytes(header, parallel)
        + _PROCESS_BYTES
    )
    return min(total, _MOST_BYTES)


def sequence_ids(parallel: int, *, partial_removal: bool = False) -> int:
    """How many sequences the worker lays its context out for, to run and to keep as cache.

    Without ``partial_removal`` (recurrent models) each takes a whole state, so there are fewer.
    """
    cached = _CACHED_SEQUENCES if partial_removal else min(parallel, _CACHED_SEQUENCES)
    return min(_MOST_SEQUENCE_IDS, parallel + cached)


def outputs_per_batch(ids: int) -> int:
    """How many rows of logits a step may give where there are ``ids`` sequence ids.

    llama.cpp lays out its graph for one from each, and aborts where that is less.
    """
    return max(_LEAST_OUTPUTS, ids)


def least_stored_tokens(cells: int) -> int:
    """For how many tokens of cached prefixes there is memory besides ``cells`` KV cells."""
    return cells // 4


def most_stored_tokens(
    header: GgufHeader, cells: int, memory_bytes: int, kv_type: KvType, parallel: int
) -> int:
    """The same where all of ``memory_bytes`` may be used; at most as many as there are cells.

    Cells nobody works with slow all answers, thus what is cached had better be in the store.
    """
    least = least_stored_tokens(cells)
    spare = memory_bytes - estimate_memory(header, cells, kv_type, parallel)
    return min(cells, least + max(0, spare) // max(1, kv_bytes(header, 1, kv_type)))


def kv_bytes(header: GgufHeader, cells: int, kv_type: KvType) -> int:
    """Bytes of ``cells`` KV cells."""
    kind = _TYPES_BY_NAME[kv_type.upper()]
    return cells * _kv_values(header) * kind.block_bytes // kind.block_elements


def _kv_values(header: GgufHeader) -> int:
    """Numbers that one KV cell holds, keys and values of all layers."""
    heads = header.layer_sizes("attention.head_count") or []
    kv_heads = header.layer_sizes("attention.head_count_kv") or heads
    head_length = (header.embedding_length or 0) // max([1, *heads])
    key = header.size("attention.key_length") or head_length
    value = header.size("attention.value_length") or head_length
    window_key = header.size("attention.key_length_swa") or key
    window_value = header.size("attention.value_length_swa") or value
    window_layers = _window_layers(header, len(kv_heads))
    # Trailing layers may read the cache of an earlier one (gemma3n, gemma4).
    own = len(kv_heads) - (header.size("attention.shared_kv_layers") or 0)
    # Where only each n-th layer has attention (qwen3next), the others have a recurrent state.
    interval = header.size("full_attention_interval") or 1
    return sum(
        count * (window_key + window_value if in_window else key + value)
        for layer, (count, in_window) in enumerate(zip(kv_heads, window_layers, strict=True))
        if layer < own and (layer + 1) % interval == 0
    )


def _window_layers(header: GgufHeader, layers: int) -> list[bool]:
    """Which layers have a sliding window, where the file says so layer by layer."""
    pattern = header.metadata.get(f"{header.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, list) and len(pattern) == layers:
        return [bool(item) for item in pattern]
    return [False] * layers


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


def _compute_bytes(header: GgufHeader, parallel: int) -> int:
    rows = outputs_per_batch(sequence_ids(parallel, partial_removal=True))
    logits = 2 * rows * (header.vocabulary or 0)
    activations = _BATCH_TOKENS * 8 * (header.embedding_length or 0)
    return (logits + activations) * _FLOAT_BYTES

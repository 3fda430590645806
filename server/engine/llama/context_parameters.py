"""What all contexts of a model are created with."""

from __future__ import annotations

import llama_cpp

from server.core.worker_settings import FlashAttention, KvType

_KV_TYPES: dict[KvType, int] = {
    "f32": llama_cpp.GGML_TYPE_F32,
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}
# With AUTO, llama.cpp enables flash attention where the device and the model support it.
_FLASH_ATTENTION_TYPES: dict[FlashAttention, int] = {
    "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def context_parameters(
    *, threads: int, flash_attention: FlashAttention, kv_type: KvType
) -> llama_cpp.llama_context_params:
    """llama.cpp's parameters without the sizes, which are each context's own."""
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.flash_attn_type = _FLASH_ATTENTION_TYPES[flash_attention]
    parameters.type_k = parameters.type_v = _KV_TYPES[kv_type]
    parameters.kv_unified = True
    parameters.swa_full = True
    parameters.no_perf = True
    return parameters

"""A loaded GGUF file."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property
from typing import Any

import llama_cpp

from server.core.model_info import Pooling
from server.engine.llama.library import LoadError, log, new_context
from server.engine.llama.vocabulary import LlamaVocabulary

_POOLINGS: dict[str, Pooling] = {
    str(llama_cpp.LLAMA_POOLING_TYPE_MEAN): "mean",
    str(llama_cpp.LLAMA_POOLING_TYPE_CLS): "cls",
    str(llama_cpp.LLAMA_POOLING_TYPE_LAST): "last",
}


class LlamaModel:
    """A GGUF file's vocabulary, metadata and (unless ``vocabulary_only``) weights."""

    def __init__(
        self,
        path: str,
        *,
        vocabulary_only: bool = False,
        safe_mode: bool = False,
        with_head: bool = False,
        gpu_layers: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Load ``path``; with ``gpu_layers`` None a build with GPU support offloads every layer.

        ``with_head``: also the layers of its head that guesses further tokens (MTP).

        Raises:
            LoadError: llama.cpp cannot load the file; the message is its reason.
        """
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = vocabulary_only
        parameters.use_extra_bufts = not safe_mode
        parameters.load_mtp = with_head
        parameters.n_gpu_layers = -1 if gpu_layers is None else gpu_layers

        def report(fraction: float, _: object) -> bool:
            if progress is not None:
                progress(fraction)
            return True

        self.has_head = with_head
        # Pointers of adapters that nothing uses any more.
        self.unused_adapters: list[Any] = []
        callback = llama_cpp.llama_progress_callback(report)
        parameters.progress_callback = callback
        log.take()
        self.pointer = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        if not self.pointer:
            raise LoadError(log.take() or "llama.cpp gave no reason")
        self.metadata = self._read_metadata()
        self.vocabulary = LlamaVocabulary(self.pointer, self.metadata)

    def _read_metadata(self) -> dict[str, str]:
        metadata = {}
        for index in range(llama_cpp.llama_model_meta_count(self.pointer)):
            key = self._string(llama_cpp.llama_model_meta_key_by_index, index)
            metadata[key] = self._string(llama_cpp.llama_model_meta_val_str_by_index, index)
        return metadata

    def _string(self, getter: Callable[..., int], *arguments: int) -> str:
        """A string that llama.cpp writes into a buffer, as snprintf does."""
        size = 1024
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = getter(self.pointer, *arguments, buffer, size)
            if length < size:
                return buffer.raw[: max(length, 0)].decode("utf-8", "replace")
            size = length + 1

    @property
    def context_train(self) -> int:
        """The context length the model was trained with, in tokens."""
        return int(llama_cpp.llama_model_n_ctx_train(self.pointer))

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return int(llama_cpp.llama_model_n_params(self.pointer))

    @property
    def layers(self) -> int:
        """The number of layers."""
        return int(llama_cpp.llama_model_n_layer(self.pointer))

    @property
    def partial_removal(self) -> bool:
        """Whether its state can be cut back to an earlier token (not: recurrent, hybrid)."""
        return not (
            llama_cpp.llama_model_is_recurrent(self.pointer)
            or llama_cpp.llama_model_is_hybrid(self.pointer)
        )

    @property
    def window(self) -> int | None:
        """How many tokens its sliding-window layers look back, the token itself included."""
        return int(llama_cpp.llama_model_n_swa(self.pointer)) or None

    @property
    def has_planes(self) -> bool:
        """Whether positions have several dimensions (M-RoPE)."""
        kind = llama_cpp.llama_model_rope_type(self.pointer)
        return kind in (llama_cpp.LLAMA_ROPE_TYPE_MROPE, llama_cpp.LLAMA_ROPE_TYPE_IMROPE)

    @property
    def is_supported(self) -> bool:
        """Whether it generates, embeds or ranks: no encoder-decoder and no diffusion model."""
        return (
            bool(llama_cpp.llama_model_has_decoder(self.pointer))
            and not llama_cpp.llama_model_has_encoder(self.pointer)
            and not llama_cpp.llama_model_is_diffusion(self.pointer)
        )

    @property
    def made_to_rank(self) -> bool:
        """Whether the file says that the model ranks texts."""
        return self._stated_pooling == str(llama_cpp.LLAMA_POOLING_TYPE_RANK)

    @property
    def classes(self) -> list[str]:
        """The outputs of its classifier by name, empty where the file has no names."""
        label = llama_cpp.llama_model_cls_label
        return [
            (label(self.pointer, number) or b"").decode("utf-8", "replace")
            for number in range(llama_cpp.llama_model_n_cls_out(self.pointer))
        ]

    @property
    def embedding_size(self) -> int:
        """The number of dimensions of an embedding."""
        return int(llama_cpp.llama_model_n_embd_out(self.pointer))

    @property
    def pooling(self) -> Pooling | None:
        """How token embeddings become a text's; files of embedding models state it."""
        return _POOLINGS.get(self._stated_pooling)

    @property
    def _stated_pooling(self) -> str:
        architecture = self.metadata.get("general.architecture")
        return self.metadata.get(f"{architecture}.pooling_type", "")

    @cached_property
    def reads_in_parts(self) -> bool:
        """Whether no token attends to later ones, so that a text can be computed in parts.

        False for encoders like BERT. Only a context knows, so this creates a minimal one.

        Raises:
            LoadError: llama.cpp cannot create the context.
        """
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 1
        pointer = new_context(self.pointer, parameters)
        has_memory = bool(llama_cpp.llama_get_memory(pointer))
        is_causal = bool(llama_cpp.llama_get_causal_attn(pointer))
        llama_cpp.llama_free(pointer)
        return has_memory and is_causal

    def close(self) -> None:
        """Free the weights. No context may use them after this."""
        llama_cpp.llama_model_free(self.pointer)

"""Embeddings of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from server.core.worker_settings import FlashAttention, KvType
from server.engine.backend import DecodeFailed
from server.engine.batch import Batch
from server.engine.llama.binding import bind
from server.engine.llama.context_parameters import context_parameters
from server.engine.llama.library import log, new_context
from server.engine.llama.model import LlamaModel

# Texts computed together; a choice. A recurrent model holds one state for each, and causal ones
# read their texts in parts anyway.
_TEXTS_TOGETHER = 64
_TEXTS_IN_PARTS = 16
# llama.cpp computes and keeps a whole row of logits for every token whose embedding is asked for.
# A causal model therefore reads its texts in parts of this many tokens: at a vocabulary of 262k,
# 128 rows take 128 MiB.
_EMBEDDED_TOKENS_PER_PART = 128


class LlamaEmbedder:
    """Computes embeddings in a context of its own.

    It pools token embeddings itself, since llama.cpp averages only within one physical batch. One
    call takes at most ``most_texts`` texts with at most ``most_tokens`` tokens together; for an
    encoder none may be longer than those that it was trained on.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        most_tokens: int,
        threads: int,
        flash_attention: FlashAttention,
        kv_type: KvType,
    ) -> None:
        """Create the context.

        Raises:
            LoadError: llama.cpp cannot create it, usually for lack of memory.
        """
        at_once = _EMBEDDED_TOKENS_PER_PART if model.reads_in_parts else most_tokens
        most_texts = _TEXTS_IN_PARTS if model.reads_in_parts else _TEXTS_TOGETHER
        # llama.cpp aborts where a batch has room for fewer tokens than there are sequences.
        self.most_texts = min(most_texts, most_tokens)
        parameters = context_parameters(
            threads=threads, flash_attention=flash_attention, kv_type=kv_type
        )
        parameters.n_ctx = most_tokens
        parameters.n_batch = parameters.n_ubatch = min(at_once, most_tokens)
        parameters.n_seq_max = self.most_texts
        parameters.embeddings = True
        if model.pooling is not None:
            parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        self._pointer = new_context(model.pointer, parameters)
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self._model = model
        self._batch = Batch(int(parameters.n_batch))
        self._bound = bind(self._batch)
        self.most_tokens = most_tokens

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Embeddings of norm 1, shape (texts, embedding size); ``texts`` are token ids.

        Raises:
            DecodeFailed: llama.cpp reports an error, or an embedding is zero or not finite.
            ValueError: a text is empty or too long, or there are too many texts or tokens.
        """
        lengths = [len(text) for text in texts]
        if not all(lengths) or len(texts) > self.most_texts or sum(lengths) > self.most_tokens:
            raise ValueError(f"texts of {lengths} tokens, limit {self.most_tokens} in all")
        # An encoder may have one embedding per position, and none for later ones.
        if not self._model.reads_in_parts and max(lengths) > self._model.context_train:
            raise ValueError(f"a text of {max(lengths)} tokens, limit {self._model.context_train}")
        tokens = np.concatenate([np.asarray(text, np.int32) for text in texts])
        positions = np.concatenate([np.arange(length) for length in lengths])
        owners = np.repeat(np.arange(len(texts)), lengths)
        weights = np.concatenate([self._weights(length) for length in lengths])
        pooled = np.zeros((len(texts), self._model.embedding_size))
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)
        for start in range(0, len(tokens), self._batch.capacity):
            part = slice(start, start + self._batch.capacity)
            rows = self._compute(tokens[part], positions[part], owners[part])
            firsts = np.flatnonzero(np.diff(owners[part], prepend=-1))
            pooled[owners[part][firsts]] += np.add.reduceat(
                rows * weights[part, np.newaxis], firsts
            )
        norms: NDArray[np.float64] = np.linalg.norm(pooled, axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise DecodeFailed("the model computed an embedding without direction")
        return (pooled / norms).astype(np.float32)

    def _weights(self, length: int) -> NDArray[np.float64]:
        """The weight of each token in its text's embedding, shape (length,)."""
        weights = np.zeros(length)
        match self._model.pooling:
            case "cls":
                weights[0] = 1
            case "last":
                weights[-1] = 1
            case _:
                weights[:] = 1 / length
        return weights

    def _compute(
        self, tokens: NDArray[Any], positions: NDArray[Any], sequence_ids: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Token embeddings, shape (tokens, embedding size): a view, valid until the next call."""
        count = len(tokens)
        batch, bound = self._batch, self._bound[0]
        batch.tokens[:count] = tokens
        batch.positions[:count] = positions
        batch.sequence_ids[:count] = sequence_ids
        batch.wants_logits[:count] = 1
        bound.n_tokens = count
        status = llama_cpp.llama_decode(self._pointer, bound)
        if status != 0:
            raise DecodeFailed(f"llama_decode answered {status}: {log.take()}")
        pointer = llama_cpp.llama_get_embeddings(self._pointer)
        rows: NDArray[np.float32] = np.ctypeslib.as_array(
            pointer, shape=(count, self._model.embedding_size)
        )
        return rows

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_free(self._pointer)

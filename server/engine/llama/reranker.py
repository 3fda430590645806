"""Scores of texts from models made to rank."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
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
from server.engine.llama.token_types import TypedEmbeddings

# Texts computed together; a choice. A recurrent model holds one state for each.
_TEXTS_TOGETHER = 16
# The sequence that holds what all texts of a request begin with.
_SHARED = _TEXTS_TOGETHER
# Tokens of a causal model computed at once. With a classifier, llama.cpp also keeps a row of logits
# for each of them: 128 rows of a vocabulary of 262k take 128 MiB.
_TOKENS_PER_PART = 512
_CLASSIFIED_TOKENS_PER_PART = 128


@dataclass(frozen=True, slots=True)
class Head:
    """Where a model's verdict on a text is.

    Attributes:
        yes: What speaks for the text: an output of the file's classifier, or a token.
        no: What speaks against it, in the same terms; None where a verdict is one number.
        words: Whether the two are tokens, whose logits after the text are compared.
        probabilities: Whether the classifier's outputs are probabilities rather than logits.
    """

    yes: int
    no: int | None
    words: bool
    probabilities: bool = False


class LlamaReranker:
    """Computes scores in a context of its own.

    `begin` takes what all texts of a request begin with, which a model that reads in parts computes
    once. Each `score` after it takes at most ``most_texts`` texts, with at most ``most_tokens``
    tokens together with that beginning.
    """

    most_texts = _TEXTS_TOGETHER

    def __init__(
        self,
        model: LlamaModel,
        head: Head,
        *,
        most_tokens: int,
        threads: int,
        flash_attention: FlashAttention,
        kv_type: KvType,
        typed: TypedEmbeddings | None = None,
    ) -> None:
        """Create the context; ``typed`` is for models that tell the texts of a pair apart.

        Raises:
            LoadError: llama.cpp cannot create it, usually for lack of memory.
        """
        per_part = _TOKENS_PER_PART if head.words else _CLASSIFIED_TOKENS_PER_PART
        sequences = _TEXTS_TOGETHER + 1
        # llama.cpp aborts where a batch has room for fewer tokens than there are sequences.
        room = max(most_tokens, sequences)
        at_once = per_part if model.reads_in_parts else room
        parameters = context_parameters(
            threads=threads, flash_attention=flash_attention, kv_type=kv_type
        )
        parameters.n_ctx = room
        parameters.n_batch = parameters.n_ubatch = min(at_once, room)
        parameters.n_seq_max = sequences
        parameters.embeddings = not head.words
        if not head.words:
            parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_RANK
        elif model.made_to_rank:
            parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        self._pointer = new_context(model.pointer, parameters)
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self._head = head
        self._outputs = model.vocabulary.size if head.words else len(model.classes)
        self._batch = Batch(int(parameters.n_batch))
        self._bound = bind(self._batch)
        self._tokens = self._batch.tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        self._shared = 0
        self._typed = typed
        self.most_tokens = most_tokens

    def begin(self, shared: Sequence[int]) -> None:
        """Forget the last request; ``shared`` is what the next texts begin with.

        Raises:
            DecodeFailed: llama.cpp reports an error.
            ValueError: The model does not read in parts, or there are too many tokens.
        """
        if shared and (not self._memory or len(shared) >= self.most_tokens):
            raise ValueError(f"a beginning of {len(shared)} tokens, limit {self.most_tokens}")
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)
        self._shared = len(shared)
        tokens = np.asarray(shared, np.int32)
        owners = np.full(len(shared), _SHARED)
        self._compute(tokens, np.arange(len(shared)), owners, ends={})

    def score(
        self, texts: Sequence[Sequence[int]], seconds: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """What speaks for each text, as logits (the logarithm of its odds), shape (texts,).

        ``texts`` are token ids, without what `begin` was given. ``seconds`` says where in each the
        tokens of the second type begin, for models that have types.

        Raises:
            DecodeFailed: llama.cpp reports an error, or a score is not finite.
            ValueError: A text is empty, or there are too many texts or tokens.
        """
        lengths = [len(text) for text in texts]
        total = self._shared + sum(lengths)
        if not all(lengths) or len(texts) > self.most_texts or total > self.most_tokens:
            raise ValueError(f"texts of {lengths} tokens, limit {self.most_tokens} in all")
        if self._memory:
            # All of the last group, which may have had more texts: their cells are needed.
            for number in range(self.most_texts):
                llama_cpp.llama_memory_seq_rm(self._memory, number, -1, -1)
            for number in range(len(texts) if self._shared else 0):
                llama_cpp.llama_memory_seq_cp(self._memory, _SHARED, number, -1, -1)
        tokens = np.concatenate([np.asarray(text, np.int32) for text in texts])
        places = np.concatenate([np.arange(length) for length in lengths])
        rows = None
        if self._typed is not None and seconds is not None:
            rows = self._typed.rows(tokens, places >= np.repeat(seconds, lengths))
        verdicts = self._compute(
            tokens,
            self._shared + places,
            np.repeat(np.arange(len(texts)), lengths),
            rows=rows,
            ends={end - 1: number for number, end in enumerate(np.cumsum(lengths).tolist())},
        )
        scores = np.array([self._score(verdicts[number]) for number in range(len(texts))])
        if not np.isfinite(scores).all():
            raise DecodeFailed("the model computed a score that is no number")
        return scores

    def _score(self, verdict: NDArray[np.float64]) -> float:
        """What speaks for a text whose outputs are ``verdict``, shape (outputs,)."""
        if self._head.probabilities:
            # The least that a float32 holds stands for a probability of 0.
            verdict = np.log(np.maximum(verdict, np.finfo(np.float32).tiny))
        against = 0.0 if self._head.no is None else verdict[self._head.no]
        return float(verdict[self._head.yes] - against)

    def _compute(
        self,
        tokens: NDArray[Any],
        positions: NDArray[Any],
        sequence_ids: NDArray[Any],
        *,
        ends: dict[int, int],
        rows: NDArray[np.float32] | None = None,
    ) -> dict[int, NDArray[np.float64]]:
        """The outputs of the texts that ``ends`` numbers by the places of their last tokens.

        ``rows`` are embeddings that the model reads in place of ``tokens``.
        """
        batch, found = self._batch, {}
        for start in range(0, len(tokens), batch.capacity):
            part = slice(start, start + batch.capacity)
            count = len(tokens[part])
            here = {end - start: text for end, text in ends.items() if start <= end < part.stop}
            batch.tokens[:count] = tokens[part]
            batch.positions[:count] = positions[part]
            batch.sequence_ids[:count] = sequence_ids[part]
            # llama.cpp classifies all tokens or none, and warns where only some are asked for.
            batch.wants_logits[:count] = not self._head.words
            batch.wants_logits[list(here)] = 1
            status = llama_cpp.llama_decode(
                self._pointer, self._input(count, None if rows is None else rows[part])
            )
            if status != 0:
                raise DecodeFailed(f"llama_decode answered {status}: {log.take()}")
            for end, text in here.items():
                found[text] = self._output(end, text)
        return found

    def _input(self, count: int, rows: NDArray[np.float32] | None) -> Any:
        """The batch as llama.cpp takes it: its first ``count`` tokens, or ``rows`` for them."""
        bound = self._bound[0]
        bound.n_tokens = count
        if rows is None:
            bound.token, bound.embd = self._tokens, None
        else:
            bound.token = None
            bound.embd = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return bound

    def _output(self, end: int, text: int) -> NDArray[np.float64]:
        if self._head.words:
            row = llama_cpp.llama_get_logits_ith(self._pointer, end)
        else:
            row = llama_cpp.llama_get_embeddings_seq(self._pointer, text)
        return np.ctypeslib.as_array(row, shape=(self._outputs,)).astype(np.float64)

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_free(self._pointer)

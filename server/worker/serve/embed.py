"""Embeddings, computed on a thread of their own beside the engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from server.core.embeddings import Embeddings
from server.core.errors import (
    ContextLengthExceeded,
    DragomanError,
    InvalidRequest,
    ModelUnavailable,
    QueueFull,
)
from server.core.model_info import EmbeddingInfo
from server.engine.llama import LlamaEmbedder, LoadError
from server.prompt.guard.length import check_length
from server.worker.protocol import Embed, Embedded
from server.worker.serve.load import Loaded

# The first embedder has room for so many tokens; longer texts get a larger one.
_LEAST_TOKENS = 512
_RETRY_SECONDS = 1.0

_logger = logging.getLogger(__name__)


class _Cancelled(Exception):
    """Nobody waits for the request any more."""


class EmbeddingService:
    """Answers requests for embeddings in order of arrival.

    Its embedder is made when first asked for, since most models are only asked to generate.
    """

    def __init__(
        self,
        loaded: Loaded,
        send: Callable[[Embedded], None],
        queue_size: int,
    ) -> None:
        assert loaded.open_embedder is not None
        assert loaded.info.embedding is not None
        self._open: Callable[[int], LlamaEmbedder] = loaded.open_embedder
        self._limits: EmbeddingInfo = loaded.info.embedding
        self._vocabulary = loaded.model.vocabulary
        self._send = send
        self._queue_size = queue_size
        self._queue: SimpleQueue[Embed] = SimpleQueue()
        self._pending: set[int] = set()
        self._embedder: LlamaEmbedder | None = None
        self._step_started: float | None = None

    @property
    def step_seconds(self) -> float:
        """How long the current computation has been running."""
        started = self._step_started
        return 0.0 if started is None else time.monotonic() - started

    # --- from the thread that reads the socket ---

    def submit(self, request: Embed) -> None:
        """Queue ``request``, or refuse it at once when the queue is full."""
        waiting = len(self._pending) - 1  # the first is being computed
        if waiting < self._queue_size:
            self._pending.add(request.id)
            self._queue.put(request)
            return
        error = QueueFull(
            f"The model's queue is full: {waiting} requests for embeddings are waiting.",
            retry_after=_RETRY_SECONDS,
        )
        self._send(Embedded(id=request.id, error=error.info))

    def cancel(self, request_id: int) -> None:
        """Forget a request."""
        self._pending.discard(request_id)

    # --- on its own thread ---

    def run(self) -> None:
        """Answer requests for ever."""
        while True:
            request = self._queue.get()
            try:
                answer = Embedded(id=request.id, embeddings=self._embeddings(request))
            except _Cancelled:
                continue
            except DragomanError as error:
                answer = Embedded(id=request.id, error=error.info)
            except Exception as error:
                # Whatever it is, it must not end the thread that the next request needs.
                _logger.exception("embeddings failed")
                failure = DragomanError(f"The embeddings could not be computed: {error}")
                answer = Embedded(id=request.id, error=failure.info)
            finally:
                self._step_started = None
                self._pending.discard(request.id)
            self._send(answer)

    def _embeddings(self, request: Embed) -> Embeddings:
        dimensions = request.dimensions
        if dimensions is not None and dimensions > self._limits.dimensions:
            raise InvalidRequest(
                f"This model's embeddings have {self._limits.dimensions} dimensions; "
                f"{dimensions} are asked for.",
                at=("dimensions",),
            )
        texts = [self._tokens(number, given) for number, given in enumerate(request.inputs)]
        embedder = self._embedder_for(max(map(len, texts)))
        parts = []
        for group in _groups(texts, embedder):
            if request.id not in self._pending:
                raise _Cancelled
            self._step_started = time.monotonic()
            parts.append(embedder.embed(group))
        return Embeddings(
            vectors=_cut(np.concatenate(parts), dimensions).astype("<f4").tobytes(),
            prompt_tokens=sum(map(len, texts)),
        )

    def _tokens(self, number: int, given: str | list[int]) -> list[int]:
        """The tokens of one input, between those that the vocabulary wants around a text.

        What looks like a control token in a text is text.
        """
        if isinstance(given, str):
            check_length(given, self._vocabulary, self._limits.context, ("input", number))
            tokens = self._vocabulary.tokenize(given, parse_special=False, add_special=True)
        else:
            tokens = given
            self._check_vocabulary(number, tokens)
        if not tokens:
            raise InvalidRequest(f"Input {number} has no tokens.", at=("input", number))
        limit = self._limits.context
        if len(tokens) > limit:
            raise ContextLengthExceeded(
                f"This model's maximum context length for embeddings is {limit} tokens, "
                f"but input {number} has {len(tokens)} tokens.",
                at=("input", number),
            )
        return tokens

    def _check_vocabulary(self, number: int, tokens: Sequence[int]) -> None:
        size = self._vocabulary.size
        wrong = next((token for token in tokens if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"Token {wrong} of input {number} is outside the vocabulary of {size} tokens.",
                at=("input", number),
            )

    def _embedder_for(self, tokens: int) -> LlamaEmbedder:
        """An embedder that takes a text of so many tokens; the last one where it is large enough.

        Raises ModelUnavailable where there is not enough memory for it.
        """
        if self._embedder is not None and self._embedder.most_tokens >= tokens:
            return self._embedder
        if self._embedder is not None:
            self._embedder.close()
            self._embedder = None
        room = max(_LEAST_TOKENS, 1 << (tokens - 1).bit_length())
        try:
            self._embedder = self._open(min(room, self._limits.context))
        except LoadError as error:
            raise ModelUnavailable(f"There is no room to compute embeddings: {error}.") from error
        return self._embedder


def _groups(texts: list[list[int]], embedder: LlamaEmbedder) -> Iterator[list[list[int]]]:
    """The texts in order, as many at a time as the embedder takes."""
    group: list[list[int]] = []
    tokens = 0
    for text in texts:
        if len(group) == embedder.most_texts or tokens + len(text) > embedder.most_tokens:
            yield group
            group, tokens = [], 0
        group.append(text)
        tokens += len(text)
    yield group


def _cut(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.floating]:
    """The first numbers of each, made length 1 again."""
    if dimensions is None:
        return vectors
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    # A vector of zeros has no direction, but stays an answer.
    return cut / np.where(lengths == 0, 1, lengths)

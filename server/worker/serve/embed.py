"""Embeddings, computed on a thread of their own beside the engine's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from server.core.embeddings import Embeddings
from server.core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelUnavailable,
    QueueFull,
)
from server.engine.llama import LlamaEmbedder, LoadError
from server.prompt.context_length import check_context_length
from server.worker.protocol import Embed, Embedded, refusal
from server.worker.serve.connection import Send
from server.worker.serve.load import EmbeddingModel, GenerationModel
from server.worker.serve.request_queue import RequestQueue

# Tokens of the first embedder; a longer text gets a larger one. The number is a choice.
_LEAST_TOKENS = 512
# When a full queue may be tried again; a choice, since the lengths of the texts in it are unknown.
_RETRY_SECONDS = 1.0


class _Cancelled(Exception):
    """The request was cancelled while it was computed."""


class EmbeddingService:
    """Answers requests for embeddings in order of arrival.

    It opens its embedder with the first request, since most models are only asked to generate.
    """

    def __init__(
        self, model: GenerationModel | EmbeddingModel, send: Send, *, queue_size: int
    ) -> None:
        self._model = model
        self._send = send
        self._queue_size = queue_size
        self._queue: RequestQueue[Embed] = RequestQueue(
            self._answer, send, failure="The embeddings could not be computed"
        )
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
            self._queue.put(request, gives_way=request.gives_way)
            return
        error = QueueFull(
            f"The model's queue is full: {waiting} requests for embeddings are waiting.",
            retry_after=_RETRY_SECONDS,
        )
        self._send(refusal(request, error))

    def cancel(self, request_id: int) -> None:
        """Forget a request; what is being computed for it ends with its current group of texts."""
        self._pending.discard(request_id)

    # --- on its own thread ---

    def run(self) -> None:
        """Answer requests until the process ends."""
        self._queue.run()

    def _answer(self, request: Embed) -> None:
        try:
            embeddings = self._embeddings(request)
        except _Cancelled:
            return
        finally:
            self._step_started = None
            self._pending.discard(request.id)
        self._send(Embedded(id=request.id, embeddings=embeddings))

    def _embeddings(self, request: Embed) -> Embeddings:
        dimensions = request.dimensions
        if dimensions is not None and dimensions > self._model.embedding.dimensions:
            raise InvalidRequest(
                f"This model's embeddings have {self._model.embedding.dimensions} dimensions; "
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
        """The tokens of one input; a text gets those that the vocabulary puts around texts.

        A control token spelt out in a text stays text.
        """
        limit = self._model.embedding.context
        if isinstance(given, str):
            check_context_length(given, self._model.vocabulary, limit, ("input", number))
            tokens = self._model.vocabulary.tokenize(given, parse_special=False, add_special=True)
        else:
            tokens = given
            self._check_vocabulary(number, tokens)
        if not tokens:
            raise InvalidRequest(f"Input {number} has no tokens.", at=("input", number))
        if len(tokens) > limit:
            raise ContextLengthExceeded(
                f"This model's maximum context length for embeddings is {limit} tokens, "
                f"but input {number} has {len(tokens)} tokens.",
                at=("input", number),
            )
        return tokens

    def _check_vocabulary(self, number: int, tokens: Sequence[int]) -> None:
        size = self._model.vocabulary.size
        wrong = next((token for token in tokens if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"Token {wrong} of input {number} is outside the vocabulary of {size} tokens.",
                at=("input", number),
            )

    def _embedder_for(self, tokens: int) -> LlamaEmbedder:
        """An embedder for a text of ``tokens`` tokens: the present one where it is large enough.

        Raises ModelUnavailable where there is not enough memory for a new one.
        """
        if self._embedder is not None and self._embedder.most_tokens >= tokens:
            return self._embedder
        if self._embedder is not None:
            self._embedder.close()
            self._embedder = None
        room = max(_LEAST_TOKENS, 1 << (tokens - 1).bit_length())
        try:
            self._embedder = self._model.open_embedder(min(room, self._model.embedding.context))
        except LoadError as error:
            raise ModelUnavailable(f"There is no room to compute embeddings: {error}.") from error
        return self._embedder


def _groups(texts: list[list[int]], embedder: LlamaEmbedder) -> Iterator[list[list[int]]]:
    """The texts in order, in groups that the embedder takes at once."""
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
    """The first ``dimensions`` numbers of each vector, scaled to length 1 again."""
    if dimensions is None:
        return vectors
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    # A vector of zeros has no direction, but stays an answer.
    return cut / np.where(lengths == 0, 1, lengths)

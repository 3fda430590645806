"""Embeddings, computed on a thread of their own beside the engine's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.core.embeddings import Embeddings
from server.core.errors import ContextLengthExceeded, InvalidRequest
from server.engine.llama import LlamaEmbedder
from server.prompt.context_length import check_context_length
from server.worker.protocol import Embed, Embedded
from server.worker.serve.connection import Send
from server.worker.serve.load import EmbeddingModel, GenerationModel
from server.worker.serve.text_service import TextService, groups


class EmbeddingService(TextService[Embed, LlamaEmbedder]):
    """Answers requests for embeddings."""

    def __init__(
        self, model: GenerationModel | EmbeddingModel, send: Send, *, queue_size: int
    ) -> None:
        super().__init__(
            model.open_embedder,
            send,
            longest=model.embedding.context,
            queue_size=queue_size,
            what="embeddings",
        )
        self._model = model

    def _compute(self, request: Embed) -> Embedded:
        return Embedded(id=request.id, embeddings=self._embeddings(request))

    def _embeddings(self, request: Embed) -> Embeddings:
        dimensions = request.dimensions
        if dimensions is not None and dimensions > self._model.embedding.dimensions:
            raise InvalidRequest(
                f"This model's embeddings have {self._model.embedding.dimensions} dimensions; "
                f"{dimensions} are asked for.",
                at=("dimensions",),
            )
        texts = [self._tokens(number, given) for number, given in enumerate(request.inputs)]
        embedder = self._computer_for(max(map(len, texts)))
        parts = []
        for group in groups(texts, embedder):
            with self._step(request):
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


def _cut(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.floating]:
    """The first ``dimensions`` numbers of each vector, scaled to length 1 again."""
    if dimensions is None:
        return vectors
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    # A vector of zeros has no direction, but stays an answer.
    return cut / np.where(lengths == 0, 1, lengths)

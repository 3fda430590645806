"""Embeddings, computed on a thread of their own beside the engine's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.core.embeddings import Embeddings
from server.core.errors import InvalidRequest
from server.engine.llama import LlamaEmbedder
from server.worker.protocol import Embed, Embedded
from server.worker.serve.connection import Send
from server.worker.serve.load import EmbeddingModel, GenerationModel
from server.worker.serve.text_reader import TextReader
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
        self._reader = TextReader(
            model.vocabulary, model.embedding_family, most=model.embedding.context
        )

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
        read = [
            self._reader.read(number, given, request.reading)
            for number, given in enumerate(request.inputs)
        ]
        texts = [each.tokens for each in read]
        embedder = self._computer_for(max(map(len, texts)))
        parts = []
        for group in groups(texts, embedder):
            with self._step(request):
                parts.append(embedder.embed(group))
        return Embeddings(
            vectors=_cut(np.concatenate(parts), dimensions).astype("<f4").tobytes(),
            prompt_tokens=sum(map(len, texts)),
            cut=[number for number, each in enumerate(read) if each.cut],
        )


def _cut(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.floating]:
    """The first ``dimensions`` numbers of each vector, scaled to length 1 again."""
    if dimensions is None:
        return vectors
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    # A vector of zeros has no direction, but stays an answer.
    return cut / np.where(lengths == 0, 1, lengths)

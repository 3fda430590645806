"""Scores of documents, computed on a thread of their own."""

from __future__ import annotations

from collections.abc import Sequence

from server.core.errors import ContextLengthExceeded
from server.core.ranking import RankingRequest, Scores
from server.engine.llama import LlamaReranker
from server.prompt.pairs import Pair
from server.worker.protocol import Rank, Ranked
from server.worker.serve.connection import Send
from server.worker.serve.load import RankingModel
from server.worker.serve.text_service import TextService, groups


class RankingService(TextService[Rank, LlamaReranker]):
    """Answers requests for scores."""

    def __init__(self, model: RankingModel, send: Send, *, queue_size: int) -> None:
        super().__init__(
            model.open_reranker,
            send,
            longest=model.ranking.context,
            queue_size=queue_size,
            what="scores",
        )
        self._model = model

    def _compute(self, request: Rank) -> Ranked:
        pairs, cut = self._pairs(request.request)
        texts = [pair.tokens for pair in pairs]
        shared = _common(texts) if self._model.shares else 0
        reranker = self._computer_for(max(map(len, texts)))
        logits: list[float] = []
        with self._step(request):
            reranker.begin(texts[0][:shared])
        for group in groups([text[shared:] for text in texts], reranker, beside=shared):
            seconds = [pair.second for pair in pairs[len(logits) : len(logits) + len(group)]]
            with self._step(request):
                logits += reranker.score(group, seconds).tolist()
        tokens = sum(map(len, texts))
        return Ranked(id=request.id, scores=Scores(logits=logits, prompt_tokens=tokens, cut=cut))

    def _pairs(self, request: RankingRequest) -> tuple[list[Pair], list[int]]:
        """Query and document of each, and the documents that were cut.

        Raises ContextLengthExceeded for a pair that is too long and must not be cut, and for a
        query without room for a document.
        """
        most = self._model.ranking.context
        most = most if request.most is None else min(most, request.most)
        pairs, cut = [], []
        for number, document in enumerate(request.documents):
            query = request.queries[number if len(request.queries) > 1 else 0]
            pair = self._model.pairs.pair(
                query,
                document,
                instruction=request.instruction,
                most=most,
                most_document=request.most_document,
            )
            if pair.cut:
                cut.append(number)
            if pair.cut and not request.truncate:
                raise ContextLengthExceeded(
                    f"Document {number} and its query have more than {most} tokens, which is the "
                    "most that is read of both together.",
                    at=("documents", number),
                    numbers={"tokens": most + 1, "most": most},
                )
            pairs.append(pair)
        return pairs, cut


def _common(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens all texts begin with; at least one of each is not counted."""
    first, length = texts[0], min(map(len, texts)) - 1
    for text in texts:
        different = (place for place in range(length) if text[place] != first[place])
        length = next(different, length)
    return length

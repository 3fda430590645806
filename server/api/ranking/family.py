"""Models that rank: reranking with the errors of each form, and scores with OpenAI's."""

from __future__ import annotations

from server.api.family import Family
from server.api.ranking import rerank, score
from server.api.ranking.errors import RERANK_ERRORS, TEI_ERRORS
from server.api.ranking.schemas import RerankRequest, ScoreRequest

FAMILIES = (
    Family(errors=RERANK_ERRORS, routers=(rerank.router,), bodies=(RerankRequest,)),
    Family(errors=TEI_ERRORS, routers=(rerank.tei_router,)),
    Family(routers=(score.router,), bodies=(ScoreRequest,)),
)

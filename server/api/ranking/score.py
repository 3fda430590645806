"""``POST /v1/score``: how well texts fit each other, one with many or pair by pair."""

from __future__ import annotations

import time
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.endpoint import described_body, read
from server.api.ignored_names import ignored_header, unknown_names
from server.api.ranking.schemas import ScoreList, ScoreObject, ScoreRequest, ScoreUsage
from server.api.ranking.scoring import scale, scored, without_effect
from server.api.truncated import truncated_header
from server.api.validation import to_json
from server.core.errors import InvalidRequest, Locator
from server.core.ids import random_id
from server.core.ranking import RankingRequest

router = APIRouter()


@router.post("/v1/score", response_model=ScoreList, openapi_extra=described_body(ScoreRequest))
@router.post("/score", include_in_schema=False)
async def score(request: Request) -> Response:
    """Score texts against each other."""
    body = await read(request, ScoreRequest)
    wanted = _wanted(body)
    info, scores = await scored(request, body.model, wanted, partial(_placed, body))
    raw = body.raw_scores or body.use_activation is False
    tokens = scores.prompt_tokens
    answer = ScoreList(
        id=f"score-{random_id(24)}",
        object="list",
        created=int(time.time()),
        model=info.model_id,
        data=[
            ScoreObject(index=index, object="score", score=scale(logit, raw=raw))
            for index, logit in enumerate(scores.logits)
        ],
        usage=ScoreUsage(prompt_tokens=tokens, total_tokens=tokens, completion_tokens=0),
    )
    headers = {
        **ignored_header([*unknown_names(body), *without_effect(wanted, info)]),
        **truncated_header("text_2", scores.cut),
    }
    return Response(to_json(answer), media_type="application/json", headers=headers)


def _wanted(body: ScoreRequest) -> RankingRequest:
    """One text beside many goes with each of them; lists of one length are pairs."""
    first = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    second = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(first) not in {1, len(second)}:
        at = body.place(("text_1",))
        raise InvalidRequest(
            f"{at[0]}: There are {len(first)} texts, but {len(second)} on the other side; there "
            "must be one, or as many.",
            at=at,
        )
    tokens = body.truncate_prompt_tokens
    return RankingRequest(
        queries=first,
        documents=second,
        instruction=body.instruction,
        truncate=tokens is not None,
        most=tokens if tokens and tokens > 0 else None,
    )


def _placed(body: ScoreRequest, at: Locator) -> Locator:
    """Where the client wrote what is at the canonical place ``at``."""
    match at:
        case ("documents", *rest):
            at = ("text_2", *(rest if isinstance(body.text_2, list) else ()))
        case ("query", *_):
            at = ("text_1",)
    return body.place(at)

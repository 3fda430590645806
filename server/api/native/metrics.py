"""``GET /metrics``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from server.api.context import context

router = APIRouter()


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """All figures, in Prometheus' text format."""
    return Response(context(request).metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

"""Health: whether the process is alive and can serve. Needs no API key."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from server import __version__
from server.api.context import Context, context

router = APIRouter()


class Health(BaseModel):
    """``status`` is what ``/health/ready`` decides on; ``models`` counts models by state."""

    status: Literal["ok", "loading", "no_model"]
    version: str
    models: dict[str, int]


@router.get("/health/live")
async def live() -> dict[str, str]:
    """200 as long as the event loop turns."""
    return {"status": "ok"}


@router.get("/health/ready", response_model=Health, responses={503: {"model": Health}})
async def ready(request: Request) -> JSONResponse:
    """200 when a request can be served, 503 while the first model loads or when there is none."""
    health = _health(context(request))
    return JSONResponse(health.model_dump(), status_code=200 if health.status == "ok" else 503)


@router.get("/health")
async def health(request: Request) -> Health:
    """The same report, always with 200."""
    return _health(context(request))


def _health(shared: Context) -> Health:
    states: Counter[str] = Counter(entry.state for entry in shared.pool.models())
    status: Literal["ok", "loading", "no_model"] = "no_model"
    if states["ready"]:
        status = "ok"
    elif states["loading"]:
        status = "loading"
    elif states["unloaded"]:
        status = "ok"
    return Health(status=status, version=__version__, models=dict(states))

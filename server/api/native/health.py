"""Health: whether the process is alive and can serve. Needs no API key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from server import __version__
from server.api.context import Context, context

router = APIRouter()

Status = Literal["ok", "loading", "failed", "no_model", "draining"]


class Health(BaseModel):
    """``status`` is what ``/health/ready`` decides on; ``models`` counts models by state.

    ``loading`` and ``failed`` are those of the models named at start that were not ready yet, and
    that cannot be served. ``GET /v1/models`` has the reasons.
    """

    status: Status
    version: str
    models: dict[str, int]
    loading: list[str]
    failed: list[str]


@router.get("/health/live")
async def live() -> dict[str, str]:
    """200 as long as the event loop turns."""
    return {"status": "ok"}


@router.get("/health/ready", response_model=Health, responses={503: {"model": Health}})
async def ready(request: Request) -> JSONResponse:
    """200 when requests can be served, by all models that were named at start.

    503 until then, while one of them has failed, where there is no model, and when the server is
    about to end.
    """
    health = _health(context(request))
    return JSONResponse(health.model_dump(), status_code=200 if health.status == "ok" else 503)


@router.get("/health")
async def health(request: Request) -> Health:
    """The same report, always with 200."""
    return _health(context(request))


def _health(shared: Context) -> Health:
    unready = shared.pool.unready()
    states: Counter[str] = Counter(entry.state for entry in shared.pool.models())
    failed = sorted(name for name, state in unready.items() if state == "failed")
    return Health(
        status="draining" if shared.drain.begun else _status(states, unready),
        version=__version__,
        models=dict(states),
        loading=sorted(unready.keys() - set(failed)),
        failed=failed,
    )


def _status(states: Counter[str], unready: Mapping[str, str]) -> Status:
    if "failed" in unready.values():
        return "failed"
    if unready:
        return "loading"
    if states["ready"]:
        return "ok"
    if states["loading"]:
        return "loading"
    return "ok" if states["unloaded"] else "no_model"

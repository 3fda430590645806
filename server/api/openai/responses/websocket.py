"""``GET /v1/responses``: the offer of a WebSocket, which is refused.

Codex makes it first where it takes the server for OpenAI's own. After 426 it posts at once; after
any other refusal it offers six times more, which takes seconds.
"""

from __future__ import annotations

from typing import NoReturn

from fastapi import APIRouter, Request

from server.http.errors import MethodNotAllowed, UpgradeRequired

router = APIRouter()


@router.get("/v1/responses", response_model=None, include_in_schema=False)
async def refuse_websocket(request: Request) -> NoReturn:
    """Say that a response is asked for by POST."""
    if request.headers.get("upgrade", "").lower() == "websocket":
        raise UpgradeRequired("There are no WebSockets here: use POST.")
    raise MethodNotAllowed("GET is not allowed for /v1/responses.")

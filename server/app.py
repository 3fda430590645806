"""The application: settings and a pool of models in, an ASGI application out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from server import __version__
from server.api.context import Context
from server.api.native import health, metrics, models, openapi, playground
from server.api.openai import chat, completions, embeddings, template
from server.api.openai.schemas.error import ErrorBody
from server.core.errors import DragomanError, InvalidRequest, NotFound
from server.core.pool import Pool
from server.core.settings import Settings
from server.http.errors import MethodNotAllowed
from server.http.middleware import (
    CorsMiddleware,
    HostMiddleware,
    KeyMiddleware,
    RequestMiddleware,
    error_response,
)
from server.telemetry import Metrics


def create_app(settings: Settings, pool: Pool) -> FastAPI:
    """The application that serves the models of ``pool``, which is closed with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await pool.close(settings.drain_seconds)

    figures = Metrics(stats=pool.stats, restarts=pool.restarts)
    app = FastAPI(
        title="dragoman",
        version=__version__,
        # Its pages load scripts from the network; `openapi` describes the bodies that we read.
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.context = Context(settings=settings, pool=pool, metrics=figures)
    for module in (
        chat,
        completions,
        embeddings,
        models,
        template,
        health,
        metrics,
        openapi,
        playground,
    ):
        app.include_router(module.router, responses={"default": {"model": ErrorBody}})
    _handle_errors(app)
    # The last one added is the outermost.
    app.add_middleware(KeyMiddleware, keys=settings.api_keys)
    app.add_middleware(CorsMiddleware, origins=settings.cors_origins)
    if settings.loopback:
        app.add_middleware(HostMiddleware)
    app.add_middleware(RequestMiddleware, metrics=figures)
    return app


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(DragomanError)
    async def ours(_: Request, error: DragomanError) -> Response:
        return error_response(error)

    @app.exception_handler(RecursionError)
    async def nested(_: Request, __: RecursionError) -> Response:
        return error_response(InvalidRequest("The body is nested too deeply."))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        return error_response(_routing_error(request, error), dict(error.headers or {}))


def _routing_error(request: Request, error: HTTPException) -> DragomanError:
    """What the router says, as ours."""
    path = request.url.path[:200]
    match error.status_code:
        case 404:
            return NotFound(f"There is no {path} here.")
        case 405:
            return MethodNotAllowed(f"{request.method} is not allowed for {path}.")
        case status if status < 500:
            return InvalidRequest(str(error.detail))
        case _:
            return DragomanError("The server failed.")

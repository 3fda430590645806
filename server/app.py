"""The application: settings, a pool of models and API families in, an ASGI application out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from server import __version__
from server.api.anthropic import family as anthropic
from server.api.context import Context
from server.api.endpoint import described_body, endpoint
from server.api.error_responses import ErrorResponses
from server.api.family import Family
from server.api.native import family as native
from server.api.openai import family as openai
from server.api.ranking import family as ranking
from server.api.runs import Runs
from server.batches.application import Application
from server.batches.runner import BatchRunner
from server.batches.shared import Shared as SharedByBatches
from server.core.errors import DragomanError, InvalidRequest, NotFound
from server.core.pool import Pool
from server.core.pulls import Pulls
from server.core.settings import Settings
from server.http.bodiless import HeadMiddleware
from server.http.drain import Drain, DrainMiddleware
from server.http.errors import MethodNotAllowed
from server.http.hosts import HostMiddleware
from server.http.keys import KeyMiddleware, KeyRing
from server.http.line_separators import LineSeparatorMiddleware
from server.http.metrics_port import MetricsPortMiddleware
from server.http.middleware import CorsMiddleware, RequestMiddleware
from server.http.near_paths import path_meant
from server.http.proxies import ProxyMiddleware
from server.store.file_folder import FileFolder
from server.store.kinds import Limits
from server.store.store import Store
from server.store.work_marks import WorkMarks
from server.telemetry.engine_figures import EngineFigures
from server.telemetry.metrics import Metrics
from server.telemetry.server_figures import ServerFigures

if TYPE_CHECKING:
    from server.telemetry.traces import Traces

# The first has the shape of errors that belong to no family.
FAMILIES = (
    openai.FAMILY,
    anthropic.FAMILY,
    *native.FAMILIES,
    *ranking.FAMILIES,
)


def create_app(
    settings: Settings,
    pool: Pool,
    families: Sequence[Family] = FAMILIES,
    *,
    pulls: Pulls | None = None,
    elsewhere: Callable[[str], bool] = lambda _: False,
) -> FastAPI:
    """The application that serves the models of ``pool`` and lets ``pulls`` fetch more, if given.

    ``elsewhere`` says whether another server with the same store has a model that is not here.
    It closes ``pool`` and ``pulls``. Raises ConfigError if the file of API keys cannot be read.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if app.state.context.keeps_files:
            batches.start()
        yield
        await batches.close()  # before its lines are refused: they are asked again later
        if pulls is not None:
            await pulls.close()
        # Ends what runs in the background as well, which then stores how it ended.
        await pool.close(settings.drain_seconds)
        await runs.close()
        await store.close()
        if traces is not None:
            await asyncio.to_thread(traces.close)

    store, runs, figures = _store(settings), Runs(), _figures(pool)
    traces = _traces(settings.otlp_endpoint)
    ring = KeyRing(settings.api_keys, settings.keys_file, refused=figures.refused)
    respond = ErrorResponses(families)
    app = _bare(lifespan)
    app.state.keys, app.state.traces = ring, traces
    app.state.application = Application(app, respond)
    files = FileFolder(settings.files_dir, store.identity)
    batches = _batches(
        app, settings, pool=pool, store=store, files=files, figures=figures, elsewhere=elsewhere
    )
    app.state.context = Context(
        settings=settings,
        pool=pool,
        metrics=figures,
        store=store,
        runs=runs,
        files=files,
        batches=batches,
        drain=Drain(),
        pulls=pulls,
    )
    app.state.families, app.state.error_responses = families, respond
    _add_families(app, families, respond)
    _handle_errors(app, families, respond)
    _add_middleware(app, settings)
    return app


def _bare(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    # FastAPI's pages load scripts from the network; our description has the bodies we read.
    return FastAPI(
        title="dragoman",
        version=__version__,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )


def _figures(pool: Pool) -> Metrics:
    return Metrics(
        EngineFigures(pool.stats, pool.restarts), ServerFigures(pool.models, pool.worker_pids)
    )


def _store(settings: Settings) -> Store:
    limits = Limits(bytes=settings.store_max_bytes, seconds=settings.store_max_days * 86_400)
    return Store(settings.store_url if settings.store else None, limits)


def _traces(endpoint: str | None) -> Traces | None:
    if endpoint is None:
        return None
    from server.telemetry.traces import Traces  # noqa: PLC0415 - an extra brings what it needs

    return Traces(endpoint)


def _batches(
    app: FastAPI,
    settings: Settings,
    *,
    pool: Pool,
    store: Store,
    files: FileFolder,
    figures: Metrics,
    elsewhere: Callable[[str], bool],
) -> BatchRunner:
    shared = SharedByBatches(
        store=store,
        files=files,
        marks=WorkMarks(files),
        application=app.state.application,
        find_model=pool.entry,
        elsewhere=elsewhere,
        keys=app.state.keys.digests,
        counted=figures.batch_line,
        most_bytes=settings.max_body_bytes,
        parallel=settings.batch_parallel,
        days=settings.store_max_days,
    )
    return BatchRunner(shared)


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """Around the routes; the last one added is the outermost."""
    respond = app.state.error_responses
    app.add_middleware(app.state.application.inside)
    app.add_middleware(
        KeyMiddleware,
        ring=app.state.keys,
        respond=respond,
        limit_headers=lambda path, limits: respond.shape(path).limits(limits),
        metrics_key=settings.metrics_key,
    )
    if settings.metrics_port is not None:
        app.add_middleware(MetricsPortMiddleware, port=settings.metrics_port, respond=respond)
    app.add_middleware(DrainMiddleware, drain=app.state.context.drain, respond=respond)
    app.add_middleware(CorsMiddleware, origins=settings.cors_origins, respond=respond)
    if settings.loopback or settings.allowed_hosts:
        app.add_middleware(HostMiddleware, allowed=settings.allowed_hosts, respond=respond)
    app.add_middleware(LineSeparatorMiddleware)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        ProxyMiddleware, trusted=settings.trusted_proxies, root_path=settings.root_path
    )
    app.add_middleware(
        RequestMiddleware,
        metrics=app.state.context.metrics,
        respond=respond,
        traces=app.state.traces,
    )


def _add_families(app: FastAPI, families: Sequence[Family], respond: ErrorResponses) -> None:
    for family in families:
        # Before the routes of all families, which would match first otherwise.
        for router in family.variants:
            app.include_router(router)
    # Routes are tried one after another; those that generate are asked for most.
    for family in families:
        _add_operations(app, family, _described(family, respond))
    for family in families:
        for router in family.routers:
            app.include_router(router, responses=_described(family, respond))


def _described(family: Family, respond: ErrorResponses) -> dict[int | str, dict[str, Any]]:
    """Answers that the description of each path has: an error of the family."""
    errors = family.errors or respond.shape("")
    return {"default": {"model": errors.schema}}


def _add_operations(
    app: FastAPI, family: Family, responses: dict[int | str, dict[str, Any]]
) -> None:
    for operation in family.operations:
        app.add_api_route(
            operation.path,
            endpoint(operation),
            methods=["POST"],
            response_model=operation.answer,
            name="create",  # the description of the API names it after this and the path
            summary=operation.summary,
            responses=responses,
            openapi_extra=described_body(operation.body),
        )


def _handle_errors(app: FastAPI, families: Sequence[Family], respond: ErrorResponses) -> None:
    routes = [route for family in families for each in family.routers for route in each.routes]
    paths = {operation.path for family in families for operation in family.operations}
    paths |= {route.path for route in routes if isinstance(route, Route)}

    @app.exception_handler(DragomanError)
    async def ours(request: Request, error: DragomanError) -> Response:
        return respond(error, path=request.url.path)

    @app.exception_handler(RecursionError)
    async def nested(request: Request, _: RecursionError) -> Response:
        error = InvalidRequest("The body is nested too deeply.")
        return respond(error, path=request.url.path)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        return respond(
            _routing_error(request, error, paths),
            path=request.url.path,
            headers=dict(error.headers or {}),
        )


def _routing_error(request: Request, error: HTTPException, paths: Collection[str]) -> DragomanError:
    """The router's error as one of our own; ``paths`` are those that clients may have meant."""
    path = request.url.path[:200]
    match error.status_code:
        case 404:
            meant = path_meant(path, paths)
            hint = f" If {meant} is meant, correct the client's base URL." if meant else ""
            return NotFound(f"There is no {path} here.{hint}")
        case 405:
            return MethodNotAllowed(f"{request.method} is not allowed for {path}.")
        case status if status < 500:
            return InvalidRequest(str(error.detail))
        case _:
            return DragomanError("The server failed.")

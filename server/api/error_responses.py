"""Errors as responses, in the shape of the family that the path belongs to."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec
from fastapi.responses import Response
from starlette.routing import Route, compile_path

from server.api.family import ErrorShape, Family
from server.core.errors import DragomanError, WorkerDied
from server.http.errors import SPOKEN_PROTOCOL, Unauthorized, UpgradeRequired


class ErrorResponses:
    """Makes the responses for errors.

    A path of no family, and one of a family without a shape of its own, has the shape of the first
    family.
    """

    def __init__(self, families: Sequence[Family]) -> None:
        first = families[0].errors
        assert first is not None, "the first family has the shape that others may lack"
        self._default: ErrorShape = first
        self._shapes = [
            (pattern, family.errors)
            for family in families
            if family.errors is not None
            for pattern in _patterns(family)
        ]

    def shape(self, path: str) -> ErrorShape:
        """The shape of errors at ``path``."""
        fitting = (shape for pattern, shape in self._shapes if pattern.match(path))
        return next(fitting, self._default)

    def __call__(
        self, error: DragomanError, *, path: str = "", headers: dict[str, str] | None = None
    ) -> Response:
        """The response that tells of ``error``, with ``headers`` beside those it brings."""
        headers = dict(headers or {})
        if error.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        if isinstance(error, Unauthorized):
            headers["www-authenticate"] = "Bearer"
            # Claude Code would try a wrong key ten more times, which takes minutes.
            headers["x-should-retry"] = "false"
        if isinstance(error, WorkerDied):
            # Two workers died of it or beside it. SDKs would ask three times, and the fifth death
            # makes the model unavailable to all.
            headers["x-should-retry"] = "false"
        if isinstance(error, UpgradeRequired):
            headers |= SPOKEN_PROTOCOL
        shape = self.shape(path)
        return Response(
            msgspec.json.encode(shape.body(error)),
            status_code=shape.status(type(error)),
            media_type="application/json",
            headers=headers,
        )


def _patterns(family: Family) -> list[re.Pattern[str]]:
    """Expressions that match the family's paths, also those with parameters or that do not exist.

    A path below one that generates (``/v1/messages/batches``) is asked for by the family's clients.
    """
    routes = [route for router in family.routers for route in router.routes]
    below = "/{below:path}"
    return [
        *(
            compile_path(f"{made.path}{end}")[0]
            for made in family.operations
            for end in ("", below)
        ),
        *(route.path_regex for route in routes if isinstance(route, Route)),
    ]

"""Paths of another family, in a form of its own for the requests of one family's clients."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope


def variant_router(applies: Callable[[Headers], bool]) -> APIRouter:
    """A router whose paths exist only for requests whose headers ``applies`` knows.

    They are not in the description of the API, which has one entry for a path.
    """

    class VariantRoute(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            if scope["type"] == "http" and applies(Headers(scope=scope)):
                return super().matches(scope)
            return Match.NONE, {}

    return APIRouter(route_class=VariantRoute, include_in_schema=False)

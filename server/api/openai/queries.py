"""Parameters in the query of a request."""

from __future__ import annotations

from fastapi import Request

from server.core.errors import InvalidRequest
from server.core.sampling import INT32_MAX
from server.store.kinds import Order, PageRequest

_MOST_ITEMS = 100
_DEFAULT_ITEMS = 20


def page_request(
    request: Request, *, default: int = _DEFAULT_ITEMS, most: int = _MOST_ITEMS
) -> PageRequest:
    """What to list: ``after``, ``limit``, ``order``; raises InvalidRequest.

    More than ``most`` items are not listed at once, whatever ``limit`` says.
    """
    query = request.query_params
    orders: dict[str, Order] = {"asc": "asc", "desc": "desc"}
    order = orders.get(query.get("order", "desc"))
    if order is None:
        raise InvalidRequest("order: asc or desc.", at=("order",))
    limit = number(request, "limit", least=1)
    return PageRequest(
        after=query.get("after"),
        limit=min(default if limit is None else limit, most),
        order=order,
    )


def number(request: Request, name: str, *, least: int) -> int | None:
    """A whole number of at least ``least``; raises InvalidRequest."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) >= least):
        raise InvalidRequest(f"{name}: a whole number of at least {least}.", at=(name,))
    return min(int(text), INT32_MAX)


def flag(request: Request, name: str) -> bool:
    """A switch, off where it is not given; raises InvalidRequest."""
    text = request.query_params.get(name, "false")
    if text not in {"true", "false"}:
        raise InvalidRequest(f"{name}: true or false.", at=(name,))
    return text == "true"


def words(request: Request, name: str) -> list[str]:
    """All values of a parameter that may be repeated; some clients add brackets to its name."""
    query = request.query_params
    return [*query.getlist(name), *query.getlist(f"{name}[]")]

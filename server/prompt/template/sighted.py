"""Jinja's filters and tests, looking through the disguise of texts (``sight.py``)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.filters import FILTERS
from markupsafe import Markup

from server.prompt.template.sight import Sight, current_sight


def seeing_filters(filters: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Those of ``filters`` that look into texts, each looking through the disguise."""
    ways: dict[str, Callable[..., Any]] = {
        "replace": _replace,
        "trim": _trim,
        "urlencode": _written,
        "xmlattr": _whole,
        "striptags": _whole,
        "urlize": _whole,
        "wordwrap": _whole,
        "int": _answer,
        "float": _answer,
        "wordcount": _answer,
        "dictsort": _sorted_items,
        "min": _extreme,
        "max": _extreme,
        "sort": _sorted,
        "unique": _sorted,
    }
    ways |= dict.fromkeys(("e", "escape", "forceescape"), _written)
    return {name: _seeing(filters.get(name, FILTERS[name]), way) for name, way in ways.items()}


def seeing_tests(tests: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """``tests``, each of which compares what is below the disguise."""
    return {name: _seeing(test, _answer) for name, test in tests.items()}


def _seeing(function: Any, way: Callable[..., Any]) -> Callable[..., Any]:
    leading = int(hasattr(function, "jinja_pass_arg"))

    @functools.wraps(function)
    def looking(*args: Any, **kwargs: Any) -> Any:
        if (sight := current_sight()) is None:
            return function(*args, **kwargs)
        plain = functools.partial(function, *args[:leading])
        return way(sight, plain, *args[leading:], **kwargs)

    return looking


def _replace(  # noqa: PLR0917 - Jinja's filter takes as many
    sight: Sight, plain: Any, value: Any, old: Any, new: Any, count: int | None = None
) -> Any:
    plain(sight.value(value), sight.value(old), sight.value(new), count)  # its checks
    return sight.replaced(str(value), str(old), str(new), -1 if count is None else count)


def _trim(sight: Sight, plain: Any, value: Any, chars: str | None = None) -> Any:
    return sight.trimmed(value if isinstance(value, str) else plain(value), "strip", chars)


def _written(sight: Sight, plain: Any, value: Any) -> Any:
    if not isinstance(value, str) or isinstance(value, Markup):
        return plain(value)
    written = sight.escaped(value, lambda text: str(plain(text)))
    return Markup(written) if isinstance(plain(""), Markup) else written  # noqa: S704


def _whole(sight: Sight, plain: Any, *args: Any, **kwargs: Any) -> Any:
    """All that the filter writes counts as the request's."""
    made = plain(*map(sight.value, args), **kwargs)
    return made if made == plain(*args, **kwargs) else type(made)(sight.mark(str(made)))


def _answer(sight: Sight, plain: Any, *args: Any, **kwargs: Any) -> Any:
    return plain(*map(sight.value, args), **kwargs)


def _sorted(sight: Sight, plain: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    return sight.sorted(lambda values: plain(values, *args, **kwargs), value)


def _extreme(sight: Sight, plain: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    listed = list(value)
    if not listed:
        return plain(listed, *args, **kwargs)
    return sight.sorted(lambda values: [plain(values, *args, **kwargs)], listed)[0]


def _sorted_items(sight: Sight, plain: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    keys = {sight.value(key): key for key in value}
    items = {shown: sight.value(value[key]) for shown, key in keys.items()}
    return [(keys[shown], value[keys[shown]]) for shown, _ in plain(items, *args, **kwargs)]

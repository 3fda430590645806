"""What to say about a name that nothing has: the names nearest to it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

# How many names a message lists, and how alike they must be; choices.
_MOST = 5
_ALIKE = 0.5


def nearest(name: str, known: Collection[str]) -> list[str]:
    """Those of ``known`` that ``name`` may be meant for; letter case makes no difference."""
    wanted = name.casefold()
    parts = [other for other in known if wanted and wanted in other.casefold()]
    folded = {other.casefold(): other for other in known}
    alike = difflib.get_close_matches(wanted, folded, n=_MOST, cutoff=_ALIKE)
    return list(dict.fromkeys([*parts, *(folded[other] for other in alike)]))[:_MOST]


def closest(name: str, known: Collection[str]) -> str | None:
    """The one of ``known`` that is spelled most like ``name``; None if none is close."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def choices(name: str, known: Collection[str]) -> str:
    """A sentence with the nearest names, or else with those that there are."""
    if near := nearest(name, known):
        return f"Did you mean {' or '.join(map(repr, near))}?"
    return f"There are: {listed(sorted(known))}." if known else "There are none."


def listed(names: Sequence[str]) -> str:
    """The first of ``names``, and how many more there are."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more

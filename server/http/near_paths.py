"""Which path is meant by one that is not there."""

from __future__ import annotations

from collections.abc import Collection


def path_meant(path: str, known: Collection[str]) -> str | None:
    """The one of ``known`` that a client with a wrong base URL asks for; None if there is none.

    Such a URL lacks a part (``/models``), has one too many (``/v1/v1/models``), or names the
    endpoint itself (``/v1/chat/completions/chat/completions``).
    """
    alike = [
        other
        for other in known
        if other != "/" and (path.endswith(other) or other.endswith(path.removeprefix(other)))
    ]
    return min(alike, key=lambda other: (abs(len(other) - len(path)), other), default=None)

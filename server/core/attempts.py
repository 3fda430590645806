"""Attempts at one request: where a replica of a cluster is lost, another one is asked."""

from __future__ import annotations

import msgspec


class Attempts(msgspec.Struct, frozen=True):
    """The attempts at a request whose answer is stored.

    Attributes:
        this: The letters of the id under which this attempt stores its answer.
        given_up: So of those before. No client hears of them, though their servers may still live.
    """

    this: str
    given_up: tuple[str, ...] = ()

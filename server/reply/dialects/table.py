"""The table of dialects."""

from __future__ import annotations

from functools import lru_cache

from server.core.reply_format import Calls
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.gemma import Gemma
from server.reply.dialects.plain_json import PlainJson
from server.reply.dialects.pythonic import Pythonic
from server.reply.dialects.tagged import Tagged

DIALECTS: dict[str, type[Dialect]] = {
    "json": PlainJson,
    "tagged": Tagged,
    "pythonic": Pythonic,
    "gemma": Gemma,
}
"""Every dialect, by the name that a format's ``dialect`` gives."""


@lru_cache(maxsize=64)
def dialect_of(calls: Calls) -> Dialect:
    """The dialect of a call syntax.

    Raises:
        ValueError: There is no such dialect, or the syntax lacks something it needs.
    """
    dialect = DIALECTS.get(calls.dialect)
    if dialect is None:
        known = ", ".join(sorted(DIALECTS))
        raise ValueError(f"`dialect` {calls.dialect!r} is none of {known}")
    return dialect(calls)

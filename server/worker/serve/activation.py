"""Where in a prompt adapters begin to apply."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from server.core.request import CacheScope
from server.engine.adapters import Activation
from server.engine.llama.adapters import AdapterSet


def scope_with(adapters: AdapterSet | None, scope: CacheScope) -> CacheScope:
    """``scope`` for a prompt with ``adapters``: that of those with which it begins."""
    first = adapters.before if adapters and adapters.invocation else adapters
    return msgspec.structs.replace(scope, adapter=first.identity) if first else scope


def invoked(
    adapters: AdapterSet | None, keys: Sequence[int]
) -> tuple[AdapterSet | None, Activation | None]:
    """What applies to a prompt with these ``keys``, and from where on (None: to all of it).

    The last invocation counts. Without any, those apply that need none.
    """
    if adapters is None or not adapters.invocation:
        return adapters, None
    wanted = list(adapters.invocation)
    for start in range(len(keys) - len(wanted), -1, -1):
        if keys[start] == wanted[0] and list(keys[start : start + len(wanted)]) == wanted:
            return adapters, Activation.of(adapters, start=start, before=adapters.before)
    return adapters.before, None

"""The header of an answer that says that a limit of the request was lowered."""

from __future__ import annotations

from collections.abc import Mapping

from server.core.model_info import ModelInfo
from server.core.sampling import INT32_MAX


def clamped_header(
    asked: Mapping[str, int | None],
    info: ModelInfo | None,
    lowered: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """``x-dragoman-clamped: FIELD=N`` for each field that ``asked`` for more than the context has.

    ``lowered`` has the values that hold for fields with other limits. Clients ask for what the
    models they were written for can do; INT32_MAX asks for no limit. The context of a model that is
    not loaded yet is not known: None.
    """
    if info is None:
        return {}
    said = [
        f"{field}={info.context}"
        for field, tokens in asked.items()
        if tokens is not None and tokens > info.context and tokens != INT32_MAX
    ]
    said += [f"{field}={value}" for field, value in (lowered or {}).items()]
    return {"x-dragoman-clamped": ", ".join(said)} if said else {}

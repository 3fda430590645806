"""The header of an answer that says that a limit of the request was lowered."""

from __future__ import annotations

from collections.abc import Mapping

from server.core.model_info import ModelInfo
from server.core.sampling import INT32_MAX


def clamped_header(asked: Mapping[str, int | None], info: ModelInfo | None) -> dict[str, str]:
    """``x-dragoman-clamped: FIELD=N`` for each field that ``asked`` for more than the context has.

    Clients ask for what the models they were written for can do; INT32_MAX asks for no limit. The
    context of a model that is not loaded yet is not known: None.
    """
    if info is None:
        return {}
    lowered = [
        f"{field}={info.context}"
        for field, tokens in asked.items()
        if tokens is not None and tokens > info.context and tokens != INT32_MAX
    ]
    return {"x-dragoman-clamped": ", ".join(lowered)} if lowered else {}

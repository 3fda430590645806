"""The header of an answer that says that a limit of the request was lowered."""

from __future__ import annotations

from server.core.model_info import ModelInfo


def clamped_header(field: str, asked: int | None, info: ModelInfo | None) -> dict[str, str]:
    """``x-dragoman-clamped: FIELD=N``, where more tokens were ``asked`` for than the context has.

    Clients ask for what the models they were written for can do. The context of a model that is
    not loaded yet is not known: None.
    """
    if asked is None or info is None or asked <= info.context:
        return {}
    return {"x-dragoman-clamped": f"{field}={info.context}"}

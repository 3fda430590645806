"""Smaller models that draft for a larger one, named by ``draft`` in its sidecar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from server.core.worker_settings import DraftFile, WorkerSettings
from server.library.discovery import displayable, model_of
from server.library.footprint import draft_memory
from server.library.gguf import InvalidGguf
from server.library.header import GgufHeader
from server.library.model_header import read_model
from server.library.outline import outline


class UnusableDraft(Exception):
    """The file that a sidecar names cannot draft for its model; the message says why."""


def draft_file(
    path: Path, settings: WorkerSettings, read: Callable[[Path], GgufHeader]
) -> DraftFile:
    """What a worker is told about the draft model at ``path``; ``settings`` are its model's.

    Whether both have the same vocabulary shows when they are loaded.

    Raises:
        UnusableDraft: it is missing, broken, or generates no text.
    """
    try:
        # Else the name of a file that is not there would be taken for one of a split model.
        path.stat()
        model = model_of(path)
        header = read_model(model, read)
    except InvalidGguf as error:
        raise UnusableDraft(f"draft: {displayable(path.name)}: {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise UnusableDraft(f"draft: {displayable(path.name)}: {reason}") from error
    facts = outline(header, path.name, settings)
    if not facts.generates:
        made_for = "ranking" if facts.ranks else "embeddings"
        raise UnusableDraft(f"draft: {displayable(path.name)}: it is made for {made_for}")
    memory, cell = draft_memory(header, settings)
    return DraftFile(path=displayable(model.first), memory_bytes=memory, cell_bytes=cell)

"""Smaller models that draft for a larger one, named by ``draft`` in its sidecar."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from server.core.worker_settings import DraftFile, WorkerSettings
from server.library.discovery import Candidate, displayable, model_of
from server.library.footprint import draft_memory
from server.library.gguf import InvalidGguf
from server.library.header import GgufHeader, SkippedArray
from server.library.model_header import read_model
from server.library.outline import outline

# Bytes of two vocabularies compared at once; a choice.
_BLOCK = 1 << 20


class UnusableDraft(Exception):
    """The file that a sidecar names cannot draft for its model; the message says why."""


def draft_file(
    path: Path, model: Candidate, settings: WorkerSettings, read: Callable[[Path], GgufHeader]
) -> DraftFile:
    """What a worker is told about the file at ``path``, which drafts for ``model``.

    ``settings`` are the model's.

    Raises:
        UnusableDraft: It is missing, broken, the model itself or of another vocabulary, or it
            generates no text.
    """
    try:
        # Else the name of a file that is not there would be taken for one of a split model.
        path.stat()
        draft = model_of(path)
        header = read_model(draft, read)
        problem = _problem(draft.first, model.first, read)
    except InvalidGguf as error:
        raise UnusableDraft(f"draft: {displayable(path.name)}: {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise UnusableDraft(f"draft: {displayable(path.name)}: {reason}") from error
    facts = outline(header, path.name, settings)
    if not facts.generates:
        problem = f"it is made for {'ranking' if facts.ranks else 'embeddings'}"
    if problem:
        raise UnusableDraft(f"draft: {displayable(path.name)}: {problem}")
    memory, cell = draft_memory(header, settings)
    return DraftFile(path=displayable(draft.first), memory_bytes=memory, cell_bytes=cell)


def _problem(draft: Path, model: Path, read: Callable[[Path], GgufHeader]) -> str | None:
    """Why a file cannot draft for another, if their headers show that."""
    if draft.samefile(model):
        return "it is the model itself"
    return None if _share_tokens(draft, model, read) else "it has another vocabulary"


def _share_tokens(one: Path, other: Path, read: Callable[[Path], GgufHeader]) -> bool:
    """Whether two files have the same tokens, but for more at the end of either.

    What cannot be compared counts as the same: loading compares it again.
    """
    a, b = (read(file).metadata.get("tokenizer.ggml.tokens") for file in (one, other))
    if isinstance(a, list) and isinstance(b, list):
        return all(x == y for x, y in zip(a, b, strict=False))
    if isinstance(a, SkippedArray) and isinstance(b, SkippedArray):
        return _begin_alike(_Stored.at(one, a), _Stored.at(other, b))
    return True


class _Stored(NamedTuple):
    """Where a vocabulary lies; ``version`` changes with its file."""

    file: Path
    version: tuple[int, int]
    offset: int
    bytes: int

    @classmethod
    def at(cls, file: Path, array: SkippedArray) -> _Stored:
        facts = file.stat()
        return cls(file, (facts.st_size, facts.st_mtime_ns), array.offset, array.bytes)


@lru_cache(maxsize=64)
def _begin_alike(one: _Stored, other: _Stored) -> bool:
    """Whether the shorter of two vocabularies, as files write them, begins the longer one."""
    left = min(one.bytes, other.bytes)
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.offset)
        second.seek(other.offset)
        while left:
            block = min(left, _BLOCK)
            if first.read(block) != second.read(block):
                return False
            left -= block
    return True

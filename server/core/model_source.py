"""Where the model pool gets its models from: the border to the library, which has them on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from server.core.model_info import AdapterFile, ModelOutline
from server.core.worker_settings import WorkerSettings


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A model on disk, which can be served unless ``error`` says why not.

    ``created`` is in Unix seconds. ``memory_bytes`` estimates what the loaded model needs in all:
    weights, adapters, KV cells and compute buffers. ``settings`` is what its worker is told.
    ``outline`` is what the file's header tells.
    """

    id: str
    path: str
    created: int
    error: str | None = None
    aliases: list[str] = []
    memory_bytes: int = 0
    settings: WorkerSettings
    outline: ModelOutline | None = None
    adapters: list[AdapterFile] = []


class ModelSource(Protocol):
    """A changing set of model files."""

    def scan(self) -> Sequence[ModelFile]:
        """The models there are now. May block; must be callable from any thread."""
        ...

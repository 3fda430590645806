"""``<stem>.toml`` beside a model file: what its owner wants for this one model."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from server.core.model_info import ModelKind
from server.core.near_names import closest
from server.core.sampling import Sampling
from server.core.worker_settings import WorkerSettings

_Count = Annotated[int, Meta(ge=1)]
_Name = Annotated[str, Meta(min_length=1)]


class InvalidSidecar(ValueError):
    """The sidecar cannot be used; the message names file and key."""


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a sidecar; each is optional.

    ``context`` is the most tokens of one request. ``sampling`` holds the defaults for parameters
    that a request leaves out. ``guard`` says whether control tokens typed by a user stay text.
    ``projector`` is the file of the model's vision encoder, from the model's folder on, ``draft``
    that of a smaller model that drafts for it, and ``adapters`` are LoRA files by name.
    """

    aliases: list[_Name] = []
    family: _Name | None = None
    context: _Count | None = None
    kind: ModelKind | None = None
    threads: _Count | None = None
    gpu_layers: Annotated[int, Meta(ge=0)] | None = None
    guard: bool | None = None
    projector: _Name | None = None
    draft: _Name | None = None
    sampling: Sampling = Sampling()
    adapters: dict[_Name, _Name] = {}

    def applied_to(self, settings: WorkerSettings) -> WorkerSettings:
        """``settings`` with this model's own in their place."""
        wishes = {
            "family": self.family,
            "ctx_size": self.context,
            "kind": self.kind,
            "threads": self.threads,
            "gpu_layers": self.gpu_layers,
            "guard": self.guard,
            "sampling": self.sampling.over(settings.sampling),
        }
        stated = {name: wish for name, wish in wishes.items() if wish is not None}
        return msgspec.structs.replace(settings, **stated)


def read_sidecar(path: Path) -> Sidecar:
    """The sidecar at ``path``; an empty one where there is no such file.

    Raises:
        InvalidSidecar: it cannot be read, is not TOML, or has a wrong key or value.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return Sidecar()
    except OSError as error:
        raise InvalidSidecar(f"{path.name}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSidecar(f"{path.name}: {error}") from error
    _check_keys(path, table, Sidecar.__struct_fields__)
    if isinstance(sampling := table.get("sampling"), dict):
        _check_keys(path, sampling, Sampling.__struct_fields__, "sampling.")
    try:
        sidecar = msgspec.convert(table, Sidecar, str_keys=True)
    except msgspec.ValidationError as error:
        reason, _, at = str(error).partition(" - at `$.")
        place = at.rstrip("`")
        known = f"; known are {', '.join(get_args(ModelKind))}" if place == "kind" else ""
        raise InvalidSidecar(f"{path.name}: {place}: {reason}{known}") from error
    if problem := sidecar.sampling.problem():
        name, wrong = problem
        raise InvalidSidecar(f"{path.name}: sampling.{name}: {wrong}")
    return sidecar


def _check_keys(
    path: Path, table: dict[str, Any], known: Collection[str], prefix: str = ""
) -> None:
    for key in table.keys() - set(known):
        near = closest(key, known)
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
        raise InvalidSidecar(f"{path.name}: unknown key {prefix + key!r}; {hint}")

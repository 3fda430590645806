"""Families as data: a chat template with facts about the models it is for.

A family is a sidecar ``<name>.toml`` beside a template ``<name>.jinja``. A sidecar alone adds its
data to models that bring their own template.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

import msgspec

from server.core.sampling import Sampling
from server.prompt.messages.capabilities import Capabilities
from server.reply.builtin_formats import format_from_table


class FamilyError(ValueError):
    """A family cannot be used; the message names the file and the key at fault."""


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The models that a family is for.

    Attributes:
        architectures: Values of ``general.architecture``.
        names: Regular expressions, searched for in the model's name and file name, ignoring case.
        markers: Texts by which the format is recognised: a model's own template must contain all
            of them, a vocabulary must have all of them as special tokens.
        template_sha256: Hashes of published templates that the family's data is about.
        broken_template_sha256: Hashes of published templates that are wrong and that the family
            replaces.
    """

    architectures: list[str] = []
    names: list[str] = []
    markers: list[str] = []
    template_sha256: list[str] = []
    broken_template_sha256: list[str] = []


class _SamplingTable(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling defaults; ``source`` is the author's recommendation."""

    source: str

    def defaults(self) -> Sampling:
        return Sampling(**{name: getattr(self, name) for name in Sampling.__struct_fields__})


class _Sidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a ``<name>.toml``; see `Family` for their meaning."""

    description: str
    source: str
    stops: list[str] = []
    strip_leading_space: bool = False
    indent_labels: list[str] = []
    tools: bool = True
    selection: Selection = Selection()
    sampling: _SamplingTable | None = None
    capabilities: dict[str, bool] = {}
    reply: dict[str, Any] | None = None


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt format with data about its models.

    Attributes:
        name: The name of its files.
        path: The sidecar.
        template: Jinja source; None if the models bring their own.
        description: The format in a sentence.
        source: Who set the format's rules.
        stops: Texts that end a reply, besides the end-of-generation tokens.
        strip_leading_space: Whether one space in front of an answer belongs to the format.
        indent_labels: Texts that mark a turn at the beginning of a line; messages are indented
            there.
        tools: False if the format has no way to call tools.
        selection: Which models it is for.
        sampling: The sampling defaults.
        capabilities: Verdicts that override those of the probe.
        reply: The reply format, as `server.reply.builtin_formats.format_from_table` reads it.
    """

    name: str
    path: Path
    template: str | None
    description: str
    source: str
    stops: list[str]
    strip_leading_space: bool
    indent_labels: list[str]
    tools: bool
    selection: Selection
    sampling: Sampling
    capabilities: dict[str, bool]
    reply: dict[str, Any] | None

    def literals(self) -> list[str]:
        """Every text of the sidecar that may occur in a prompt or reply."""
        return [*self.stops, *self.selection.markers, *_strings(self.reply)]


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []


def load_families(directories: Sequence[Path]) -> dict[str, Family]:
    """All families by name, in the order in which they are tried.

    Families of a later directory come first and replace earlier ones of the same name. A directory
    may be the models folder: a sidecar beside the model of its name is about that model, and no
    family.

    Raises:
        FamilyError: A file is missing or wrong.
    """
    families: dict[str, Family] = {}
    for directory in directories:
        if not directory.is_dir():
            raise FamilyError(f"{directory}: there is no such folder of families")
        for path in sorted(directory.glob("*.jinja")):
            if not path.with_suffix(".toml").exists():
                raise FamilyError(f"{path}: there is no {path.stem}.toml beside it")
        found = {
            path.stem: _load(path)
            for path in sorted(directory.glob("*.toml"))
            if not _is_about_a_model(path)
        }
        families = found | {name: known for name, known in families.items() if name not in found}
    return families


def _is_about_a_model(path: Path) -> bool:
    """Whether the model file of the sidecar's name, or its first part, lies beside it."""
    names = (f"{escape(path.stem)}{rest}.gguf" for rest in ("", "-00001-of-*"))
    has_model = any(found for name in names for found in path.parent.glob(name))
    return has_model and not path.with_suffix(".jinja").exists()


def _load(path: Path) -> Family:
    try:
        sidecar = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _Sidecar)
        _check(sidecar)
    except (ValueError, msgspec.ValidationError) as error:
        raise FamilyError(f"{path}: {error}") from error
    template = path.with_suffix(".jinja")
    fields = {name: getattr(sidecar, name) for name in _Sidecar.__struct_fields__}
    fields["sampling"] = sidecar.sampling.defaults() if sidecar.sampling else Sampling()
    return Family(
        **fields,
        name=path.stem,
        path=path,
        template=template.read_text("utf-8") if template.exists() else None,
    )


def _check(sidecar: _Sidecar) -> None:
    """Check the values. Raises ValueError."""
    for pattern in sidecar.selection.names:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r}: {error} - at `$.selection.names`") from error
    known = [field.name for field in msgspec.structs.fields(Capabilities) if field.type is bool]
    for name in sidecar.capabilities:
        if name not in known:
            raise ValueError(
                f"unknown capability `{name}` - at `$.capabilities` (there are: {', '.join(known)})"
            )
    if sidecar.sampling and (problem := sidecar.sampling.problem()):
        name, wrong = problem
        raise ValueError(f"{wrong} - at `$.sampling.{name}`")
    if sidecar.reply is not None:
        format_from_table(sidecar.reply, "sidecar")

"""Families: a chat template with what is known about the models it is for, as data.

A family is a ``<name>.toml`` and, beside it, a ``<name>.jinja``. A ``.toml`` alone adds what it
knows to models that bring their own template.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

import msgspec

from server.core.model_info import ModelKind
from server.core.sampling import Sampling
from server.prompt.messages.capabilities import Capabilities
from server.reply.builtin_formats import format_from_table


class FamilyError(ValueError):
    """A family's files are wrong; the message names the file and the key."""


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which models a family is for.

    ``names`` are regular expressions, searched for in the model's name and file name without
    regard to case. ``markers`` are the texts that make the format recognisable: a model's own
    template must hold all of them, a vocabulary must have them as special tokens.
    ``template_sha256`` are hashes of templates published with such models; those in
    ``broken_template_sha256`` are known to be wrong, and this family replaces them.
    """

    architectures: list[str] = []
    names: list[str] = []
    markers: list[str] = []
    template_sha256: list[str] = []
    broken_template_sha256: list[str] = []


class _SamplingTable(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling defaults; ``source`` is where the model's author recommends them."""

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
    """What is known about the models of one prompt format.

    ``template`` is Jinja source, None where the models bring their own. ``source`` says who set the
    format's rules. ``stops`` end a reply beside the end-of-generation tokens. ``indent_labels`` are
    texts that mark a turn where a line begins with them: inside a message such lines are indented.
    ``tools`` false says that the format has no way to call any. ``capabilities`` overrule what
    probing the template found. ``reply`` is the reply format as `server.reply` reads it.
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
        """Every text of the sidecar that a prompt or reply of the family may hold."""
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

    Those of a later directory come first, and replace earlier ones of the same name. A directory
    may be the models folder: what is written beside a model about that model is no family.

    Raises:
        FamilyError: naming the file and the key that is wrong.
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
    """Whether the sidecar stands beside the model file of its name, or its first part."""
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
    """Raise ValueError for what is well-formed and still wrong."""
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


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice of a family looks at.

    ``template`` is the model's own chat template with its SHA-256, if it has one;
    ``special_texts`` are the texts of its special tokens.
    """

    architecture: str
    names: Sequence[str]
    kind: ModelKind
    special_texts: Collection[str]
    template: str | None = None
    template_sha256: str | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The template a model gets: its own, or the family's; and what the family adds to it."""

    family: Family | None
    own_template: bool
    warning: str | None = None


def select_family(
    families: Mapping[str, Family], facts: ModelFacts, configured: str | None
) -> Choice:
    """Choose what turns a model's messages into its native prompt.

    In this order: the configured family; the model's own template, with what a matching family adds
    to it; the family that the selection rules name; the transcript for a base model; for a model
    that answers, a guess, which the choice's warning admits.

    Raises:
        FamilyError: for a configured family that does not exist or has no template.
    """
    if configured is not None:
        return Choice(family=_configured(families, configured), own_template=False)
    if facts.template is not None:
        for family in families.values():
            if family.template and facts.template_sha256 in family.selection.broken_template_sha256:
                return Choice(family=family, own_template=False)
        return Choice(family=_describing(families, facts), own_template=True)
    if facts.kind == "base":
        return Choice(family=families["transcript"], own_template=False)
    with_template = [family for family in families.values() if family.template]
    selected = _by_name(with_template, facts) or _by_architecture(with_template, facts)
    if selected:
        return Choice(family=selected, own_template=False)
    return _guess(families, facts)


def _configured(families: Mapping[str, Family], name: str) -> Family:
    family = families.get(name)
    if family is None:
        raise FamilyError(f"there is no family {name!r}; there are: {', '.join(sorted(families))}")
    if family.template is None:
        raise FamilyError(f"{family.path}: the family has no template, so no model can be given it")
    return family


def _describing(families: Mapping[str, Family], facts: ModelFacts) -> Family | None:
    """The family whose data holds for the model's own template."""
    assert facts.template is not None
    for family in families.values():
        if facts.template_sha256 in family.selection.template_sha256:
            return family
    alike = [
        family
        for family in families.values()
        if family.selection.markers
        and all(marker in facts.template for marker in family.selection.markers)
    ]
    return _by_name(alike, facts) or next(
        (family for family in alike if facts.architecture in family.selection.architectures), None
    )


def _by_name(families: Sequence[Family], facts: ModelFacts) -> Family | None:
    for family in families:
        for pattern in family.selection.names:
            if any(re.search(pattern, name, re.IGNORECASE) for name in facts.names):
                return family
    return None


def _has_markers(family: Family, facts: ModelFacts) -> bool:
    markers = family.selection.markers
    return bool(markers) and all(marker in facts.special_texts for marker in markers)


def _by_architecture(families: Sequence[Family], facts: ModelFacts) -> Family | None:
    """The architecture alone says little (``llama`` is many models): the markers must be there."""
    for family in families:
        if facts.architecture in family.selection.architectures and _has_markers(family, facts):
            return family
    return None


def _guess(families: Mapping[str, Family], facts: ModelFacts) -> Choice:
    for family in families.values():
        if family.template and _has_markers(family, facts):
            return Choice(
                family=family,
                own_template=False,
                warning=f"The model has no chat template; family {family.name} is a guess, because "
                "the vocabulary has its control tokens. Set the model's family to choose another.",
            )
    return Choice(
        family=families["human-assistant"],
        own_template=False,
        warning="The model has no chat template and nothing says which format it was trained on; "
        "family human-assistant is a guess. Set the model's family to choose another.",
    )

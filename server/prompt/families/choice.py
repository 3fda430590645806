"""The choice of a model's family, or of additions to the model's own template."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec

from server.core.model_info import ModelKind
from server.prompt.families.definitions import Family, FamilyError


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about a model that decide its family.

    Attributes:
        architecture: The value of ``general.architecture``.
        names: The model's names, among them its file's.
        kind: Whether it continues text or answers.
        special_texts: Texts of its special tokens.
        template: Its own chat template, if it has one.
        template_sha256: The template's hash.
    """

    architecture: str
    names: Sequence[str]
    kind: ModelKind
    special_texts: Collection[str]
    template: str | None = None
    template_sha256: str | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The template a model gets, its own or the family's, and the family whose data holds."""

    family: Family | None
    own_template: bool
    warning: str | None = None


def select_family(
    families: Mapping[str, Family], facts: ModelFacts, configured: str | None
) -> Choice:
    """Choose what turns a model's messages into its native prompt.

    In this order: the configured family; the model's own template with the data of a matching
    family, or the family that replaces it; the transcript for a base model; the family that the
    selection rules name; and otherwise a guess, with a warning.

    Raises:
        FamilyError: The configured family does not exist or has no template.
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
        raise FamilyError(f"{family.path}: the family has no template, so no model can use it")
    return family


def _describing(families: Mapping[str, Family], facts: ModelFacts) -> Family | None:
    """The family whose data is about the model's own template."""
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
    """By architecture and markers, since an architecture alone says little: many are ``llama``."""
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

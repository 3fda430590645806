"""Data about models that are known by their names: TOML files in a folder of ``templates``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from server.prompt.families.definitions import FamilyError


class NamedFamily(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all of these say.

    Attributes:
        description: The family in a sentence.
        source: Who set the texts.
        names: Regular expressions, searched for in the model's name and file name, ignoring case.
    """

    description: str
    source: str
    names: list[str]

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a model that has these ``names`` is one of the family."""
        patterns = [re.compile(pattern, re.IGNORECASE) for pattern in self.names]
        return any(pattern.search(name) for pattern in patterns for name in names)


AnyFamily = TypeVar("AnyFamily", bound=NamedFamily)


def named_families(folder: Path, kind: type[AnyFamily]) -> Iterator[AnyFamily]:
    """The families in ``folder``, by the names of their files.

    Raises:
        FamilyError: A file is wrong.
    """
    for path in sorted(folder.glob("*.toml")):
        try:
            family = msgspec.convert(tomllib.loads(path.read_text("utf-8")), kind)
            for pattern in family.names:
                re.compile(pattern)
        except (ValueError, re.error) as error:
            raise FamilyError(f"{path}: {error}") from error
        yield family


def family_of(
    folders: Sequence[Path], names: Sequence[str], kind: type[AnyFamily]
) -> AnyFamily | None:
    """The family of the model that has these ``names``; later folders come first.

    Raises:
        FamilyError: A file is wrong.
    """
    for folder in reversed(folders):
        for family in named_families(folder, kind):
            if family.fits(names):
                return family
    return None


def check_places(template: str, places: Sequence[str]) -> None:
    """Raises ValueError if a place for a text is not in ``template``."""
    for place in places:
        if place not in template:
            raise ValueError(f"there is no {place} in the template")

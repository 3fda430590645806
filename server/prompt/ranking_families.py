"""How models that rank by words are prompted, as data in ``templates/ranking``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from server.prompt.families.definitions import FamilyError

_FOLDER = "ranking"


class RankingFamily(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prompt of a family of rerankers.

    Attributes:
        description: The family in a sentence.
        source: Who set its prompt.
        names: Regular expressions, searched for in the model's name and file name, ignoring case.
        template: The prompt, with ``{query}``, ``{document}`` and ``{instruction}`` for the texts.
        instruction: What the ranking is for, unless a request says otherwise.
        yes: The token whose logit after the prompt speaks for the document.
        no: The token that speaks against it; None: none does.
    """

    description: str
    source: str
    names: list[str]
    template: str
    instruction: str
    yes: str
    no: str | None = None


def ranking_family(directories: Sequence[Path], names: Sequence[str]) -> RankingFamily | None:
    """The family of the model that has these ``names``; later directories come first.

    Raises:
        FamilyError: A file is wrong.
    """
    for directory in reversed(directories):
        for path in sorted((directory / _FOLDER).glob("*.toml")):
            family = _load(path)
            patterns = [re.compile(pattern, re.IGNORECASE) for pattern in family.names]
            if any(pattern.search(name) for pattern in patterns for name in names):
                return family
    return None


def _load(path: Path) -> RankingFamily:
    try:
        family = msgspec.convert(tomllib.loads(path.read_text("utf-8")), RankingFamily)
        for pattern in family.names:
            re.compile(pattern)
    except (ValueError, re.error) as error:
        raise FamilyError(f"{path}: {error}") from error
    missing = [name for name in ("{query}", "{document}") if name not in family.template]
    if missing:
        raise FamilyError(f"{path}: there is no {missing[0]} in the template")
    return family

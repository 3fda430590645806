"""How models that rank by words are prompted, as data in ``templates/ranking``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from server.prompt.families.named import NamedFamily, check_places, family_of

_FOLDER = "ranking"


class RankingFamily(NamedFamily, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prompt of a family of rerankers.

    Attributes:
        template: The prompt, with ``{query}``, ``{document}`` and ``{instruction}`` for the texts.
        instruction: What the ranking is for, unless a request says otherwise.
        yes: The token whose logit after the prompt speaks for the document.
        no: The token that speaks against it; None: none does.
    """

    template: str
    instruction: str
    yes: str
    no: str | None = None

    def __post_init__(self) -> None:
        check_places(self.template, ("{query}", "{document}"))


def ranking_family(directories: Sequence[Path], names: Sequence[str]) -> RankingFamily | None:
    """The family of the model that has these ``names``; later directories come first.

    Raises:
        FamilyError: A file is wrong.
    """
    return family_of([each / _FOLDER for each in directories], names, RankingFamily)

"""Which model a name means."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

_SIGNS = re.compile(r"[-_.:\s]+")
# Ollama adds it to names without a tag.
_NO_TAG = ":latest"


def all_names(models: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The id that each name stands for; ``models`` are the aliases by id. Ids go before aliases."""
    aliases = {alias: model_id for model_id, names in models.items() for alias in names}
    return aliases | {model_id: model_id for model_id in models}


def find_name(name: str, names: Mapping[str, str]) -> str | None:
    """The id that ``name`` means among ``names``, which map each name to an id; None if none does.

    A name as it is written goes first. Else letter case and the signs ``- _ . :`` make no
    difference, so that ``smollm2:135m`` is ``SmolLM2-135M``, and Ollama's tag ``:latest`` means
    nothing; a name that fits several models this way means none of them.
    """
    if name in names:
        return names[name]
    wanted = _normal(name.removesuffix(_NO_TAG))
    found = {model_id for other, model_id in names.items() if wanted and _normal(other) == wanted}
    return found.pop() if len(found) == 1 else None


def fits(name: str, names: Collection[str]) -> bool:
    """Whether ``name`` is one of ``names`` as `find_name` compares them, or several."""
    if name in names:
        return True
    wanted = _normal(name.removesuffix(_NO_TAG))
    return bool(wanted) and any(_normal(other) == wanted for other in names)


def _normal(name: str) -> str:
    return _SIGNS.sub("-", name.casefold()).strip("-")

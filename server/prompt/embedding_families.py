"""What embedding models want in front of texts, as data in ``templates/embedding``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from server.core.embeddings import Purpose
from server.prompt.families.definitions import FamilyError

_FOLDER = "embedding"
_INSTRUCTION = "{instruction}"


class EmbeddingFamily(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a family's models were trained with.

    Attributes:
        description: The family in a sentence.
        source: Who set the texts.
        names: Regular expressions, searched for in the model's name and file name, ignoring case.
        query: What stands in front of a query; None, as of the others: it is not known.
        document: The same of a document to be found.
        classification: The same of a text to be classified.
        clustering: The same of a text to be grouped.
        similarity: The same of a text to be compared with its like.
        instruction: What ``{instruction}`` in these stands for, unless a request says otherwise.
    """

    description: str
    source: str
    names: list[str]
    query: str | None = None
    document: str | None = None
    classification: str | None = None
    clustering: str | None = None
    similarity: str | None = None
    instruction: str = ""

    @property
    def purposes(self) -> list[Purpose]:
        """The purposes that are known.

        Where there is an instruction for queries alone, documents have none.
        """
        stated: list[tuple[Purpose, str | None]] = [
            ("query", self.query),
            ("document", self.document),
            ("classification", self.classification),
            ("clustering", self.clustering),
            ("similarity", self.similarity),
        ]
        known: list[Purpose] = [purpose for purpose, text in stated if text is not None]
        return [*known, "document"] if self.query is not None and self.document is None else known

    @property
    def takes_instruction(self) -> bool:
        """Whether a request may state the instruction of queries."""
        return _INSTRUCTION in (self.query or "")

    def before(self, purpose: Purpose, instruction: str | None) -> str:
        """What stands in front of a text that is embedded for ``purpose``."""
        text: str = getattr(self, purpose) or ""
        return text.replace(_INSTRUCTION, self.instruction if instruction is None else instruction)


def embedding_family(directories: Sequence[Path], names: Sequence[str]) -> EmbeddingFamily | None:
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


def _load(path: Path) -> EmbeddingFamily:
    try:
        family = msgspec.convert(tomllib.loads(path.read_text("utf-8")), EmbeddingFamily)
        for pattern in family.names:
            re.compile(pattern)
    except (ValueError, re.error) as error:
        raise FamilyError(f"{path}: {error}") from error
    return family

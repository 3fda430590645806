"""What embedding models want in front of texts, as data in ``templates/embedding``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from server.core.embeddings import Purpose
from server.prompt.families.named import NamedFamily, family_of

_FOLDER = "embedding"
_INSTRUCTION = "{instruction}"


class EmbeddingFamily(NamedFamily, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a family's models were trained with.

    Attributes:
        query: What stands in front of a query; None, as of the others: it is not known.
        document: The same of a document to be found.
        classification: The same of a text to be classified.
        clustering: The same of a text to be grouped.
        similarity: The same of a text to be compared with its like.
        instruction: What ``{instruction}`` in these stands for, unless a request says otherwise.
    """

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
    return family_of([each / _FOLDER for each in directories], names, EmbeddingFamily)

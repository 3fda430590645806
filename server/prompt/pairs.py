"""A query and a document as the tokens of one text, for models that rank.

No text of a request becomes a control token: only those of a template count, and its texts are
tokenised together with those of the request between two of them, as if the whole prompt were one
text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from server.core.errors import ContextLengthExceeded
from server.core.vocabulary import Vocabulary
from server.prompt.raw_prompt import with_one_bos
from server.prompt.text_cuts import first_tokens, surely_more_characters

_QUERY, _DOCUMENT, _INSTRUCTION = "{query}", "{document}", "{instruction}"
_PLACES = re.compile(r"(\{query\}|\{document\}|\{instruction\})")


class Pair(msgspec.Struct, frozen=True):
    """The tokens of a query and a document; ``cut``: only the document's beginning is in them.

    ``second`` is where the tokens of the document and what follows it begin; 0 where a template
    has its own words around the texts.
    """

    tokens: list[int]
    cut: bool
    second: int = 0


class PairPrompt(Protocol):
    """How a model is given a query and a document."""

    takes_instruction: bool

    def pair(
        self,
        query: str,
        document: str,
        *,
        instruction: str | None,
        most: int,
        most_document: int | None,
    ) -> Pair:
        """The two in at most ``most`` tokens, of which ``most_document`` are the document's.

        Raises:
            ContextLengthExceeded: The query leaves no room for a document.
        """


class Ends(msgspec.Struct, frozen=True):
    """The tokens before, between and after the two texts of a pair."""

    start: list[int]
    between: list[int]
    end: list[int]


class PlainPairs:
    """Query and document between the separators of the vocabulary, as cross-encoders read them."""

    takes_instruction = False

    def __init__(self, vocabulary: Vocabulary, ends: Ends) -> None:
        self._vocabulary = vocabulary
        self._ends = ends

    def pair(
        self,
        query: str,
        document: str,
        *,
        instruction: str | None,
        most: int,
        most_document: int | None,
    ) -> Pair:
        """See `PairPrompt`; there is no place for an instruction."""
        start, between, end = self._ends.start, self._ends.between, self._ends.end
        asked, longer = first_tokens(self._vocabulary, query, most)
        room = most - len(start) - len(asked) - len(between) - len(end)
        if longer or room < 1:
            raise _query_too_long(len(asked), most)
        room = room if most_document is None else min(room, most_document)
        found, cut = first_tokens(self._vocabulary, document, room)
        first = [*start, *asked, *between]
        return Pair([*first, *found, *end], cut, second=len(first))


class TemplatePairs:
    """Query and document in the places of a template."""

    def __init__(self, vocabulary: Vocabulary, template: str, instruction: str) -> None:
        """``instruction`` is what stands in its place in ``template`` where a request has none."""
        self._vocabulary = vocabulary
        self._instruction = instruction
        self.takes_instruction = _INSTRUCTION in template
        pieces = _between_controls(template, vocabulary)
        place = next(number for number, piece in enumerate(pieces) if _DOCUMENT in str(piece))
        before, after = str(pieces[place]).split(_DOCUMENT, maxsplit=1)
        self._before, self._around, self._behind = (
            pieces[:place],
            (before, after),
            pieces[place + 1 :],
        )

    def pair(
        self,
        query: str,
        document: str,
        *,
        instruction: str | None,
        most: int,
        most_document: int | None,
    ) -> Pair:
        """See `PairPrompt`."""
        document, shorter = self._shortened(document, most_document)
        texts = {
            _QUERY: query,
            _DOCUMENT: document,
            _INSTRUCTION: self._instruction if instruction is None else instruction,
        }
        before, after = (_filled(text, texts) for text in self._around)
        start = with_one_bos(self._tokens(self._before, texts), self._vocabulary)
        end = self._tokens(self._behind, texts)
        room = most - len(start) - len(end)
        middle, cut = self._middle(before, document, after, room)
        if cut:
            least = len(self._spelt(before)) + len(self._spelt(after))
            if room <= least:
                raise _query_too_long(least + most - room, most)
        return Pair([*start, *middle, *end], cut or shorter)

    def _shortened(self, document: str, most: int | None) -> tuple[str, bool]:
        """The document's first ``most`` tokens as text, and whether it has more."""
        if most is None:
            return document, False
        tokens, longer = first_tokens(self._vocabulary, document, most)
        if not longer:
            return document, False
        return b"".join(map(self._vocabulary.piece, tokens)).decode("utf-8", "ignore"), True

    def _middle(self, before: str, document: str, after: str, room: int) -> tuple[list[int], bool]:
        """The tokens of the document and the texts around it, and whether the document was cut."""
        characters = surely_more_characters(room)
        while characters < len(document):
            if len(tokens := self._spelt(before + document[:characters])) > room:
                break
            characters *= 2
        else:
            tokens = self._spelt(before + document + after)
            if len(tokens) <= room:
                return tokens, False
            tokens = self._spelt(before + document)
        behind = self._spelt(after)
        return [*tokens[: max(0, room - len(behind))], *behind], True

    def _tokens(self, pieces: Sequence[int | str], texts: dict[str, str]) -> list[int]:
        found: list[int] = []
        for piece in pieces:
            found += [piece] if isinstance(piece, int) else self._spelt(_filled(piece, texts))
        return found

    def _spelt(self, text: str) -> list[int]:
        return self._vocabulary.tokenize(text, parse_special=False) if text else []


def _between_controls(template: str, vocabulary: Vocabulary) -> list[int | str]:
    """The template's control tokens, and the texts between them."""
    controls = {
        token.text: token.id for token in vocabulary.special_tokens if token.type == "control"
    }
    longest_first = sorted(filter(None, controls), key=len, reverse=True)
    if not longest_first:
        return [template]
    pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", template)
    return [controls.get(piece, piece) for piece in pieces if piece]


def _filled(text: str, texts: dict[str, str]) -> str:
    """``text`` with the request's texts in their places, and nothing replaced in those."""
    return "".join(texts.get(part, part) for part in _PLACES.split(text))


def _query_too_long(tokens: int, most: int) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"The query takes {tokens} tokens or more, which leaves no room for a document: "
        f"at most {most} are read of both together.",
        at=("query",),
        numbers={"tokens": tokens, "most": most},
    )

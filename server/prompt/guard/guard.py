r"""The guard: text of a request never becomes control tokens.

Tokenising a rendered prompt with special parsing turns ``<|im_end|>`` into a control token,
whether the template or the user wrote it. Therefore the strings of a request go through the
template in disguise (``mask.py``). A control token that the rendered text spells out is the
template's; one that appears only when the disguise is lifted contains characters of the user and
stays plain text.

    mask -> render -> lift -> partition

Where the disguise hides no control token, the prompt is tokenised in one call, exactly as without a
guard.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise

import msgspec

from server.core.vocabulary import SpecialToken, Vocabulary
from server.prompt.guard.mask import Mask, private_characters

_Trie = dict[str, "_Trie"]
_C_WHITE_SPACE = " \t\n\v\f\r"


class TextPiece(msgspec.Struct, frozen=True):
    """A stretch of the prompt, from character ``start`` to ``end``, and its tokens."""

    start: int
    end: int
    ids: list[int]


class _Forged(msgspec.Struct, frozen=True):
    """The place of a control token's text that contains characters of the user."""

    start: int
    end: int


class Guard:
    """Keeps the strings of requests apart from the control tokens of one template.

    Attributes:
        mask: The disguise for requests on their way through the template.
        controls: Ids of the protected tokens and of all tokens of type CONTROL.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        template_texts: Iterable[str],
        *,
        enabled: bool = True,
        image_marker: str | None = None,
    ) -> None:
        """Find the control tokens to protect.

        Args:
            vocabulary: The model's tokenizer.
            template_texts: The template's source, prompts that it renders, and its sidecar's
                literals. A USER_DEFINED token is protected if one of these contains it; the others
                are ordinary text, for example line breaks and HTML tags in Gemma.
            enabled: Whether to protect any tokens; if not, prompts are tokenised as they stand.
            image_marker: What the template writes for an image. It is always in the mask: text of a
                request that spells it is no image.
        """
        texts = list(template_texts)
        self._vocabulary = vocabulary
        special = vocabulary.special_tokens if enabled else []
        protected = [token for token in special if _is_protected(token, texts)]
        self._protected = {token.text: token for token in protected}
        self._ids = {token.id for token in protected}
        self.controls = self._ids | {
            token.id for token in vocabulary.special_tokens if token.type == "control"
        }
        members = [*self._protected, *([image_marker] if image_marker else [])]
        self.mask = Mask(members, taken=private_characters("\n".join([*texts, *members])))
        self._absorbed: dict[tuple[int, bool], bool] = {}

    @cached_property
    def _any(self) -> re.Pattern[str] | None:
        """Finds all protected tokens; few prompts need it, and thousands take 0.05 s."""
        return _trie_pattern(self._protected)

    def tokenize(self, masked: str, text: str) -> list[TextPiece]:
        """The tokens of a prompt, in pieces that end where a control token begins or ends.

        Args:
            masked: The rendered prompt in disguise.
            text: The same prompt with the disguise lifted; of the same length.
        """
        forged = self._forged(masked, text)
        if not forged:
            return self._parsed(text, 0, len(text))
        starts = [occurrence.start for occurrence in forged]
        reach = max(occurrence.end - occurrence.start for occurrence in forged)
        pieces: list[TextPiece] = []
        parsed_from = run_start = 0
        before: SpecialToken | None = None
        for start, end, control in [*self._controls(masked), (len(text), len(text), None)]:
            near = forged[bisect_left(starts, run_start - reach) : bisect_left(starts, start)]
            inside = [occurrence for occurrence in near if occurrence.end > run_start]
            if inside and run_start < start:
                pieces += self._parsed(text, parsed_from, run_start)
                left, right = self._trim(text, run_start, start, before, control)
                pieces.append(TextPiece(run_start, start, self._plain(text, left, right, inside)))
                parsed_from = start
            run_start, before = end, control
        return pieces + self._parsed(text, parsed_from, len(text))

    def _forged(self, masked: str, text: str) -> list[_Forged]:
        if masked == text or self._any is None:
            return []
        return [
            _Forged(match.start(), match.end(1))
            for match in self._any.finditer(text)
            if not masked.startswith(match[1], match.start())
        ]

    def _controls(self, masked: str) -> list[tuple[int, int, SpecialToken]]:
        """The template's own control tokens, found in llama.cpp's order: longest first."""
        assert self._any
        seen = {match[1] for match in self._any.finditer(masked)}
        present = {t for text in seen for t in _prefixes(text) if t in self._protected}
        found: list[tuple[int, int, SpecialToken]] = []
        gaps = [(0, len(masked))]
        for text in sorted(present, key=len, reverse=True):
            rest = []
            for gap_start, gap_end in gaps:
                position = gap_start
                while (at := masked.find(text, position, gap_end)) >= 0:
                    rest.append((position, at))
                    position = at + len(text)
                    found.append((at, position, self._protected[text]))
                rest.append((position, gap_end))
            gaps = [gap for gap in rest if gap[0] < gap[1]]
        return sorted(found, key=lambda place: place[0])

    def _parsed(self, text: str, start: int, end: int) -> list[TextPiece]:
        """Tokenise a stretch in which every control token is the template's."""
        if start == end:
            return []
        ids = self._vocabulary.tokenize(text[start:end], parse_special=True)
        return [TextPiece(start, end, ids)]

    def _plain(self, text: str, start: int, end: int, forged: Sequence[_Forged]) -> list[int]:
        """Tokens of a run in which no control token may appear.

        Without special parsing llama.cpp still matches USER_DEFINED tokens, and merges may yield
        control tokens. In that case the text is cut after the first character of each.
        """
        ids = self._cut(text, start, end, [])
        if self._ids.intersection(ids):
            ids = self._cut(text, start, end, [occurrence.start + 1 for occurrence in forged])
        return ids

    def _cut(self, text: str, start: int, end: int, cuts: Iterable[int]) -> list[int]:
        first, *others = sorted({end, *(cut for cut in cuts if start < cut < end)})
        ids = self._vocabulary.tokenize(text[start:first], parse_special=False)
        for left, right in pairwise([first, *others]):
            ids += self._continuation(text[left:right])
        return ids

    def _continuation(self, text: str) -> list[int]:
        """Tokens of text inside a run, without the space that SPM would put in front of it."""
        tokenize = self._vocabulary.tokenize
        if self._vocabulary.add_space_prefix:
            lead = tokenize("\n", parse_special=False)
            ids = tokenize("\n" + text, parse_special=False)
            if ids[: len(lead)] == lead:
                return ids[len(lead) :]
        return tokenize(text, parse_special=False)

    def _trim(
        self,
        text: str,
        start: int,
        end: int,
        before: SpecialToken | None,
        after: SpecialToken | None,
    ) -> tuple[int, int]:
        """The run without the white space that its neighbours absorb (RSTRIP, LSTRIP)."""
        if before is not None and self._absorbs(before, after_it=True):
            while start < end and text[start] in _C_WHITE_SPACE:
                start += 1
        if after is not None and self._absorbs(after, after_it=False):
            while start < end and text[end - 1] in _C_WHITE_SPACE:
                end -= 1
        return start, end

    def _absorbs(self, token: SpecialToken, *, after_it: bool) -> bool:
        """Whether the token absorbs the white space on one side, as Phi-3's do."""
        key = (token.id, after_it)
        if key not in self._absorbed:
            text = f"{token.text}\n" if after_it else f"\n{token.text}"
            self._absorbed[key] = self._vocabulary.tokenize(text, parse_special=True) == [token.id]
        return self._absorbed[key]


def _is_protected(token: SpecialToken, texts: Iterable[str]) -> bool:
    if not token.text.strip():
        return False
    if token.type != "user_defined":
        return True
    has_sign = any(not (c.isalnum() or c.isspace()) for c in token.text)
    return has_sign and any(token.text in text for text in texts)


def _prefixes(text: str) -> list[str]:
    return [text[:length] for length in range(1, len(text) + 1)]


def _trie_pattern(words: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that finds at every position the longest word that starts there."""
    root: _Trie = {}
    for word in words:
        node = root
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return re.compile(f"(?=({_alternation(root)}))", re.DOTALL) if root else None


def _alternation(node: _Trie) -> str:
    """Alternatives with the longer words first: the empty branch ends a word and comes last."""
    branches = [re.escape(c) + _alternation(child) for c, child in node.items() if c]
    if "" in node:
        branches.append("")
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"

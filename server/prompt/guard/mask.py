"""The mask: characters of a request that are disguised on their way through a chat template.

Each character that control tokens are made of is replaced, one for one, by a stand-in from
Unicode's private use area that the request does not use itself. In the rendered prompt the
template's control tokens then differ from those the user wrote; lengths and white space are the
same. ``disguise.py`` walks the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from server.core.errors import InvalidRequest
from server.prompt.guard.disguise import UNICODE_ESCAPE, Disguise, Masked

# The private use area of Unicode's basic plane (The Unicode Standard, section 23.5), whose 6400
# code points have no meaning of their own.
_FIRST_STAND_IN, _LAST_STAND_IN = 0xE000, 0xF8FF
_PRIVATE_USE = re.compile(f"[{chr(_FIRST_STAND_IN)}-{chr(_LAST_STAND_IN)}]")


def can_be_disguised(character: str) -> bool:
    """Whether a template treats the text alike when this character is replaced.

    Templates trim white space. JSON and Python literals escape quotes, backslashes and C0 controls
    by a backslash, so that lifting a disguise of these would leave a broken literal.
    """
    return not (character.isspace() or character in "\"'\\" or character < " ")


def private_characters(text: str) -> set[int]:
    r"""Private-use code points in ``text``, as characters or as ``\uXXXX``."""
    found = {ord(character) for character in _PRIVATE_USE.findall(text)}
    if "\\u" in text:
        found.update(int(code, 16) for _, code in UNICODE_ESCAPE.findall(text))
    return found


def unused_characters(count: int, taken: Collection[int]) -> list[str]:
    """Private-use characters that are not ``taken``; raises InvalidRequest for too many."""
    codes = (code for code in range(_FIRST_STAND_IN, _LAST_STAND_IN + 1) if code not in taken)
    found = [chr(code) for code in islice(codes, count)]
    if len(found) < count:
        raise InvalidRequest("The request uses too many private-use characters.")
    return found


class Mask:
    """The disguise for requests to one template."""

    def __init__(
        self,
        members: Iterable[str],
        *,
        taken: Iterable[int] = (),
    ) -> None:
        """Prepare for the control tokens ``members``.

        Args:
            members: Texts of the control tokens.
            taken: Code points that must not be stand-ins.
        """
        members = list(members)
        self._alphabet = {
            character
            for member in members
            for character in member
            if can_be_disguised(character) and not character.isalnum()
        }
        # Of control tokens that are words, only the first letter of each occurrence is disguised.
        words = [member for member in members if not self._alphabet.intersection(member)]
        self._letters = self._alphabet | {word[0] for word in words}
        self._words = _alternatives(f"{re.escape(w[0])}(?={re.escape(w[1:])})" for w in words)
        self._taken = set(taken)

    def apply(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
        kept: Collection[str] = (),
    ) -> Masked:
        """Disguise the strings of a request, but for the characters ``kept``.

        Raises:
            InvalidRequest: No stand-ins are left.
        """
        text = _text_of(messages, tools, variables, list(kept))
        stand_ins = self._stand_ins(self._letters, text)
        others = self._stand_ins(self._letters, "\n".join([text, *stand_ins.values()]))
        disguise = Disguise(
            table={ord(letter): stand_ins[letter] for letter in self._alphabet},
            stand_ins=stand_ins,
            opaque={ord(stand_in): others[letter] for letter, stand_in in stand_ins.items()},
            words=self._words,
        )
        return disguise.masked(messages, tools, variables, kept)

    def apply_to_everything(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> Masked:
        """Disguise every character that can be disguised, to find out where each came from.

        Raises:
            InvalidRequest: There are more different characters than stand-ins.
        """
        text = _text_of(messages, tools, variables)
        stand_ins = self._stand_ins(set(filter(can_be_disguised, set(text))), text)
        disguise = Disguise(
            table={ord(letter): stand_in for letter, stand_in in stand_ins.items()},
            stand_ins=stand_ins,
            opaque={},
            words=None,
        )
        return disguise.masked(messages, tools, variables)

    def _stand_ins(self, characters: Collection[str], text: str) -> dict[str, str]:
        """A stand-in for each of ``characters`` that ``text`` does not hold."""
        return dict(zip(sorted(characters), self.unused(len(characters), text), strict=True))

    def unused(self, count: int, text: str) -> list[str]:
        """Private-use characters that neither ``text`` nor the template holds.

        Raises:
            InvalidRequest: There are fewer than ``count``.
        """
        return unused_characters(count, self._taken | private_characters(text))


def _alternatives(patterns: Iterable[str]) -> re.Pattern[str] | None:
    alternatives = sorted(patterns, key=len, reverse=True)
    return re.compile("|".join(alternatives)) if alternatives else None


def _text_of(*values: Any) -> str:
    """Every string in ``values`` in one text."""
    return "\n".join(_strings(values))


def _strings(value: Any) -> Iterator[str]:
    """Every string in ``value``, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)

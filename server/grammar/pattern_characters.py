r"""Reads single characters of a pattern, their escapes, and classes of them."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from server.grammar.pattern_classes import (
    DIGITS,
    SPACES,
    WORD,
    WORD_OF_ANY_CASE,
    Class,
    Untranslatable,
    property_class,
)

_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_SYNTAX = frozenset("^$\\.*+?()[]{}|/")
_HEX = frozenset(string.hexdigits)


class NeedsForgiveness(Exception):
    """The pattern is not valid with the ``u`` flag, but may be without."""


@dataclass(frozen=True)
class Modifiers:
    """What a flag changes about the characters that follow."""

    ignore_case: bool = False
    dot_all: bool = False


class PatternCharacters:
    """A place in a pattern, and what can be read there.

    Args:
        pattern: The pattern.
        forgiving: Whether it is read by the rules of Annex B.
        modifiers: The flags that hold at its beginning.
    """

    def __init__(self, pattern: str, *, forgiving: bool, modifiers: Modifiers) -> None:
        self._text = pattern
        self._at = 0
        self._forgiving = forgiving
        self._modifiers = modifiers

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _forgive(self, problem: str) -> None:
        """Go on only by the rules of Annex B."""
        if not self._forgiving:
            raise NeedsForgiveness(problem)

    def _class_escape(self) -> Class | None:
        """The class that an escape stands for; None if it is a single character."""
        sign = self._peek()
        word = WORD_OF_ANY_CASE if self._modifiers.ignore_case else WORD
        known = {"d": DIGITS, "s": SPACES, "w": word}.get(sign.lower())
        if known is not None:
            self._at += 1
            return known.inverted() if sign.isupper() else known
        if sign not in {"p", "P"}:
            return None
        found = re.compile(r"[pP]\{([^{}]*)\}").match(self._text, self._at)
        if found is None:
            self._forgive("'\\p' without a name")
            return None
        if self._forgiving:
            raise Untranslatable(
                f"\\{sign} means a letter beside escapes that the 'u' flag forbids"
            )
        self._at = found.end()
        return property_class(found[1], complement=sign == "P")

    def _character_escape(self, *, in_class: bool = False) -> int:
        sign = self._peek()
        if not sign:
            raise Untranslatable("it is not valid: a backslash ends it")
        self._at += 1
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        if sign in "ux":
            return self._by_number(sign)
        if sign == "c":
            return self._control(in_class=in_class)
        if sign in string.digits:
            return self._octal(sign)
        if sign in _SYNTAX or (in_class and sign == "-"):
            return ord(sign)
        self._forgive(f"the escape '\\{sign}'")
        if sign in "AZz":
            raise Untranslatable(f"'\\{sign}' means a letter in JavaScript; use '^' and '$'")
        return ord(sign)

    def _by_number(self, sign: str) -> int:
        if sign == "u" and (found := re.compile(r"\{([0-9a-fA-F]+)\}").match(self._text, self._at)):
            if self._forgiving:
                raise Untranslatable(
                    "\\u{…} means letters beside escapes that the 'u' flag forbids"
                )
            self._at = found.end()
            number = found[1].lstrip("0") or "0"
            if len(number) > 6 or int(number, 16) > 0x10FFFF:
                raise Untranslatable("it is not valid: there is no such character")
            return int(number, 16)
        code = self._hex(4 if sign == "u" else 2)
        if code is None:
            self._forgive(f"'\\{sign}' without a number")
            return ord(sign)
        if 0xD800 <= code < 0xDC00 and self._text.startswith("\\u", self._at):
            before = self._at
            self._at += 2
            low = self._hex(4)
            if low is not None and 0xDC00 <= low < 0xE000:
                return 0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00
            self._at = before
        return code

    def _hex(self, digits: int) -> int | None:
        found = self._text[self._at : self._at + digits]
        if len(found) < digits or not _HEX.issuperset(found):
            return None
        self._at += digits
        return int(found, 16)

    def _control(self, *, in_class: bool) -> int:
        letter = self._peek()
        if letter.isascii() and letter.isalpha():
            self._at += 1
            return ord(letter) % 32
        self._forgive("'\\c' without a letter")
        if in_class and letter.isascii() and (letter.isdecimal() or letter == "_"):
            self._at += 1
            return ord(letter) % 32
        self._at -= 1
        return ord("\\")

    def _octal(self, sign: str) -> int:
        following = self._peek()
        if sign == "0" and not (following.isascii() and following.isdecimal()):
            return 0
        self._forgive("an octal escape")
        if sign in "89":
            return ord(sign)
        found = re.compile(r"[0-3][0-7]{0,2}|[4-7][0-7]?").match(self._text, self._at - 1)
        assert found
        self._at = found.end()
        return int(found[0], 8)

    def _class(self) -> Class:
        negated = self._take("^")
        chosen = self._class_items()
        return chosen.negate() if negated else chosen

    def _class_items(self) -> Class:
        chosen = Class()
        while not self._take("]"):
            low = self._class_atom()
            if not (
                self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in {"", "]"}
            ):
                chosen |= low
                continue
            self._at += 1
            high = self._class_atom()
            if low.single is None or high.single is None:
                self._forgive("a class as the end of a range")
                chosen |= low | Class.of(ord("-")) | high
                continue
            if low.single > high.single:
                raise Untranslatable("it is not valid: a range is out of order")
            chosen |= Class.of(low.single, high.single)
        return chosen

    def _class_atom(self) -> Class:
        sign = self._peek()
        if not sign:
            raise Untranslatable("it is not valid: a '[' is not closed")
        self._at += 1
        if sign != "\\":
            return Class.of(ord(sign))
        if self._take("b"):
            return Class.of(8)
        chosen = self._class_escape()
        return chosen if chosen is not None else Class.of(self._character_escape(in_class=True))

r"""Reads the syntax of ECMA-262's regular expressions into parts.

Beside the standard's it reads two habits of other dialects that JavaScript refuses: ``(?P<name>…)``
and a leading ``(?i)``. Escapes that only those dialects have and that JavaScript without the ``u``
flag takes for letters, ``\A`` and ``\Z``, are refused: their authors did not mean the letters.
"""

from __future__ import annotations

import re

from server.grammar.pattern_characters import Modifiers, NeedsForgiveness, PatternCharacters
from server.grammar.pattern_classes import LINE_ENDS, Class, Untranslatable
from server.grammar.pattern_parts import (
    ANY,
    Anchor,
    Choice,
    One,
    Part,
    Repeat,
    Series,
)

# Choices. Deeper nesting would come near Python's limit of recursion.
_MOST_LEVELS = 60
_MOST_CHARACTERS = 20_000
_LARGEST_COUNT = 100_000

_NO_MODIFIERS = Modifiers()
_COUNT = re.compile(r"\{(\d+)(,(\d*))?\}", re.ASCII)
_GROUP_NAME = re.compile(r"P?<[^\W\d][\w$]*>|P?<\$[\w$]*>")
_FLAGS = re.compile(r"([ims]*)(?:-([ims]*))?:")
_LEADING_FLAGS = re.compile(r"\(\?([isu]+)\)")
_GROUPS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|(\((?!\?)|\(\?P?<(?![=!]))", re.DOTALL)
_LOOKS = {"=": "look-ahead", "!": "look-ahead", "<=": "look-behind", "<!": "look-behind"}


def parse(pattern: str) -> Part:
    """The parts of ``pattern``.

    Raises:
        Untranslatable: It is not valid, or holds something that cannot be expressed.
    """
    try:
        return Parser(pattern, forgiving=False).parse()
    except NeedsForgiveness:
        return Parser(pattern, forgiving=True).parse()


class Parser(PatternCharacters):
    """Reads a pattern from its beginning to its end."""

    def __init__(
        self, pattern: str, *, forgiving: bool, modifiers: Modifiers = _NO_MODIFIERS
    ) -> None:
        if len(pattern) > _MOST_CHARACTERS:
            raise Untranslatable(f"it has more than {_MOST_CHARACTERS} characters")
        super().__init__(pattern, forgiving=forgiving, modifiers=modifiers)
        self._level = 0
        opened = [found[1] for found in _GROUPS.finditer(pattern) if found[1]]
        self._groups = len(opened)
        self._named = any(len(each) > 1 for each in opened)

    def parse(self) -> Part:
        """The parts of the pattern. Raises Untranslatable and, if unforgiving, NeedsForgiveness."""
        if leading := _LEADING_FLAGS.match(self._text):
            self._at = leading.end()
            self._modifiers = Modifiers(
                "i" in leading[1] or self._modifiers.ignore_case,
                "s" in leading[1] or self._modifiers.dot_all,
            )
        part = self._choice()
        if self._at < len(self._text):
            raise Untranslatable("it is not valid: a ')' closes nothing")
        return part

    # --- structure ---

    def _choice(self) -> Part:
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise Untranslatable(f"it is nested deeper than {_MOST_LEVELS} levels")
        ways = [self._series()]
        while self._take("|"):
            ways.append(self._series())
        self._level -= 1
        return ways[0] if len(ways) == 1 else Choice(tuple(ways))

    def _series(self) -> Part:
        parts: list[Part] = []
        while self._peek() not in {"", "|", ")"}:
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else Series(tuple(parts))

    def _term(self) -> Part:
        if self._take("^"):
            return self._anchor(end=False)
        if self._take("$"):
            return self._anchor(end=True)
        part = self._atom()
        count = self._count()
        if count is None:
            return part
        self._take("?")
        if self._peek() in {"*", "+", "?"} or (
            self._peek() == "{" and _COUNT.match(self._text, self._at)
        ):
            raise Untranslatable("it is not valid: nothing stands before a count")
        return Repeat(part, *count)

    def _anchor(self, *, end: bool) -> Part:
        if self._count() is not None:
            raise Untranslatable("it is not valid: nothing stands before a count")
        return Anchor(end=end)

    def _count(self) -> tuple[int, int | None] | None:
        for sign, count in {"*": (0, None), "+": (1, None), "?": (0, 1)}.items():
            if self._take(sign):
                return count
        found = _COUNT.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        least = _number(found[1])
        most = least if found[2] is None else _number(found[3]) if found[3] else None
        if most is not None and most < least:
            raise Untranslatable("it is not valid: the numbers of a count are out of order")
        return least, most

    def _atom(self) -> Part:
        sign = self._peek()
        self._at += 1
        match sign:
            case ".":
                return self._dot()
            case "(":
                return self._group()
            case "[":
                return self._one(self._class())
            case "\\":
                return self._escape()
            case "*" | "+" | "?":
                raise Untranslatable("it is not valid: nothing stands before a count")
            case "{" if _COUNT.match(self._text, self._at - 1):
                raise Untranslatable("it is not valid: nothing stands before a count")
            case "{" | "}" | "]":
                self._forgive(f"a lone '{sign}'")
        return self._literal(ord(sign))

    def _dot(self) -> Part:
        return ANY if self._modifiers.dot_all else self._one(LINE_ENDS.inverted())

    def _group(self) -> Part:
        before = self._modifiers
        if self._take("?"):
            self._opened()
        part = self._choice()
        if not self._take(")"):
            raise Untranslatable("it is not valid: a '(' is not closed")
        self._modifiers = before
        return part

    def _opened(self) -> None:
        """What stands between ``(?`` and the group's content."""
        for sign in ("<=", "<!", "=", "!"):
            if self._take(sign):
                raise Untranslatable(f"{_LOOKS[sign]} cannot be expressed")
        if found := _GROUP_NAME.match(self._text, self._at):
            self._at = found.end()
        elif found := _FLAGS.match(self._text, self._at):
            self._at = found.end()
            on, off = found[1], found[2] or ""
            if "m" in on:
                raise Untranslatable("lines cannot be told apart ('m')")
            self._modifiers = Modifiers(
                ("i" in on or self._modifiers.ignore_case) and "i" not in off,
                ("s" in on or self._modifiers.dot_all) and "s" not in off,
            )
        elif self._text.startswith("P=", self._at):
            raise Untranslatable("back-references cannot be expressed")
        else:
            raise Untranslatable("it is not valid: JavaScript knows no such group")

    # --- characters ---

    def _literal(self, code: int) -> Part:
        return self._one(Class.of(code))

    def _one(self, chosen: Class) -> Part:
        return One(chosen, self._modifiers.ignore_case)

    def _escape(self) -> Part:
        sign = self._peek()
        if sign in {"b", "B"}:
            raise Untranslatable(f"word boundaries (\\{sign}) cannot be expressed")
        if sign == "k":
            self._name_reference()
        elif sign.isdecimal() and sign != "0" and sign.isascii():
            self._number_reference()
        chosen = self._class_escape()
        return self._one(chosen if chosen is not None else Class.of(self._character_escape()))

    def _name_reference(self) -> None:
        if self._named or not self._forgiving:
            self._forgive("a reference")
            raise Untranslatable("back-references cannot be expressed")

    def _number_reference(self) -> None:
        digits = re.compile(r"[0-9]+").match(self._text, self._at)
        assert digits
        if int(digits[0][:9]) <= self._groups:
            raise Untranslatable("back-references cannot be expressed")
        self._forgive("a reference to no group")


def _number(digits: str) -> int:
    number = int(digits[-20:])
    if number > _LARGEST_COUNT or digits[:-20].strip("0"):
        raise Untranslatable(f"it counts beyond {_LARGEST_COUNT}")
    return number

r"""Regular expressions in Rust's syntax, which OpenAI's free-form tools are written in.

Beside ECMA-262's it has ``\A``, ``\z``, ``\x{…}`` and ``\U…``; ``\d``, ``\w`` and ``\s`` cover all
scripts, and the dot excludes the newline alone. Sets inside sets (``[a&&b]``, ``[[:alpha:]]``) are
refused. Source: https://docs.rs/regex/latest/regex/#syntax.
"""

from __future__ import annotations

import re

from server.grammar.pattern_characters import Modifiers
from server.grammar.pattern_classes import Class, Untranslatable, listed, property_class
from server.grammar.pattern_parser import Parser
from server.grammar.pattern_parts import ANY, Anchor, One, Part

_DIGITS = Class(properties=(r"\p{Nd}",))
_WORD = Class(properties=(r"\p{Alphabetic}", r"\p{M}", r"\p{Nd}", r"\p{Pc}", r"\p{Join_Control}"))
_SPACES = listed(
    *((0x09, 0x0D), 0x20, 0x85, 0xA0, 0x1680, (0x2000, 0x200A), 0x2028, 0x2029, 0x202F, 0x205F),
    0x3000,
)
_NEWLINE = listed(0x0A)
_NUMBERED = re.compile(
    r"[xuU]\{([0-9a-fA-F]{1,6})\}|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})"
)
_NAMED = re.compile(r"([pP])(?:\{(\^?)([^{}]*)\}|([A-Z]))")
_CONTROLS = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


def parse_rust(pattern: str, *, ignore_case: bool = False, dot_all: bool = False) -> Part:
    """The parts of ``pattern``.

    Raises:
        Untranslatable: It is not valid, or holds something that cannot be expressed.
    """
    modifiers = Modifiers(ignore_case, dot_all)
    return _RustParser(pattern, forgiving=True, modifiers=modifiers).parse()


class _RustParser(Parser):
    def _dot(self) -> Part:
        return ANY if self._modifiers.dot_all else One(_NEWLINE.inverted())

    def _escape(self) -> Part:
        if self._take("A"):
            return Anchor(end=False)
        if self._take("z"):
            return Anchor(end=True)
        return super()._escape()

    def _class_escape(self) -> Class | None:
        sign = self._peek()
        known = {"d": _DIGITS, "s": _SPACES, "w": _WORD}.get(sign.lower())
        if known is not None:
            self._at += 1
            if sign.islower():
                return known
            return known.negate() if known.properties else known.inverted()
        found = _NAMED.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        without = (found[1] == "P") is not (found[2] == "^")
        return property_class(found[3] or found[4], complement=without)

    def _character_escape(self, *, in_class: bool = False) -> int:
        sign = self._peek()
        if found := _NUMBERED.match(self._text, self._at):
            self._at = found.end()
            code = int(next(filter(None, found.groups())), 16)
            if code > 0x10FFFF:
                raise Untranslatable("it is not valid: there is no such character")
            return code
        self._at += 1
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        if not sign or sign.isalnum():
            raise Untranslatable(f"it is not valid: there is no escape '\\{sign}'")
        return ord(sign)

    def _class(self) -> Class:
        negated = self._take("^")
        # Hyphens and a bracket at the beginning stand for themselves.
        literal = re.compile(r"-*\]?").match(self._text, self._at)
        inside = re.compile(r"-*\]?((?:\\.|[^\]\\])*)", re.DOTALL).match(self._text, self._at)
        assert literal
        assert inside
        plain = re.sub(r"\\.", "", inside[1])
        if "[" in plain or any(sign in plain for sign in ("&&", "--", "~~")):
            raise Untranslatable("sets inside a set of characters cannot be expressed")
        self._at = literal.end()
        chosen = self._class_items()
        for sign in literal[0]:
            chosen |= Class.of(ord(sign))
        return chosen.negate() if negated else chosen

"""Classes of characters, as ECMA-262 defines them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ")

Ranges = tuple[tuple[int, int], ...]


class Untranslatable(ValueError):
    """A pattern that the grammar cannot express; the message is a clause that says why."""


def character(code: int) -> str:
    """A character as JavaScript and the compiler both read it, outside a class and inside."""
    return chr(code) if chr(code) in _PLAIN else f"\\u{{{code:x}}}"


@dataclass(frozen=True)
class Class:
    r"""A set of characters.

    Attributes:
        ranges: The first and last code points of ranges, in order and apart.
        properties: Unicode properties whose characters belong to it too: ``\p{…}``, ``\P{…}``.
        negated: Whether the set is all other characters. Kept apart from the ranges, because a
            negated class that ignores case is negated after the cases are added.
    """

    ranges: Ranges = ()
    properties: tuple[str, ...] = ()
    negated: bool = False

    @classmethod
    def of(cls, first: int, last: int | None = None) -> Class:
        """The characters from ``first`` to ``last``, or ``first`` alone."""
        return cls(((first, first if last is None else last),))

    @property
    def single(self) -> int | None:
        """The character, if the set is written as a single one."""
        if len(self.ranges) != 1 or self.properties or self.negated:
            return None
        first, last = self.ranges[0]
        return first if first == last else None

    def __or__(self, other: Class) -> Class:
        """The characters of both. Raises Untranslatable for a negated set and another."""
        if self.negated or other.negated:
            if self == Class() or other == Class():
                return self if other == Class() else other
            raise Untranslatable("a set of all but some characters cannot be joined with others")
        return Class(
            _merged([*self.ranges, *other.ranges]),
            tuple(dict.fromkeys(self.properties + other.properties)),
        )

    def inverted(self) -> Class:
        """All other characters, as ranges; the set must have no properties."""
        edges = [-1, *(edge for each in self.ranges for edge in each), _LAST + 1]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return Class(tuple((before + 1, after - 1) for before, after in gaps if after - before > 1))

    def negate(self) -> Class:
        """All other characters."""
        return replace(self, negated=not self.negated)

    def without(self, other: Class) -> Class:
        """The characters of this set that are not in ``other``, which has ranges alone.

        Properties stay as they are: no character of ``other`` may have them.
        """
        if self.negated:
            return replace(self, ranges=_merged([*self.ranges, *other.ranges]))
        lacking = Class(self.ranges).inverted() | other
        return replace(self, ranges=lacking.inverted().ranges)

    def may_hold(self, code: int) -> bool:
        """Whether the character may belong to the set; what properties hold is not looked up."""
        listed = any(first <= code <= last for first, last in self.ranges)
        return bool(self.properties) or listed is not self.negated

    def written(self) -> str:
        """The set as an expression; empty if no character of a text can belong to it.

        Half of a surrogate pair is no character of a text.
        """
        ranges = []
        for start, end in self.ranges:
            first = _SURROGATES.stop if start in _SURROGATES else start
            last = _SURROGATES.start - 1 if end in _SURROGATES else end
            if first <= last:
                ranges.append((first, last))
        everything = ranges == [(0, _LAST)]
        if self.negated and everything:
            return ""
        if not ranges and not self.properties:
            return EVERYTHING.written() if self.negated else ""
        if not self.negated and self.single is not None:
            return character(self.single)
        inside = "".join(
            character(first) + (f"-{character(last)}" if last > first else "")
            for first, last in ranges
        )
        return f"[{'^' if self.negated else ''}{inside}{''.join(self.properties)}]"


EVERYTHING = Class(((0, _LAST),))


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def listed(*ranges: tuple[int, int] | int) -> Class:
    """The characters of ranges, and single ones."""
    return Class(_merged((each, each) if isinstance(each, int) else each for each in ranges))


DIGITS = listed((0x30, 0x39))
WORD = listed((0x30, 0x39), (0x41, 0x5A), 0x5F, (0x61, 0x7A))
WORD_OF_ANY_CASE = WORD | listed(0x17F, 0x212A)
"""``\\w`` where case is ignored: the long s and the sign for Kelvin are letters of ASCII then."""

LINE_ENDS = listed(0x0A, 0x0D, 0x2028, 0x2029)
SPACES = listed(
    *((0x09, 0x0D), 0x20, 0xA0, 0x1680, (0x2000, 0x200A), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000),
    0xFEFF,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The values of General_Category and the binary properties that ECMA-262 allows (tables 67 to 70)
# and the compiler knows.
_CATEGORIES = _words(
    "L Letter LC Cased_Letter Lu Uppercase_Letter Ll Lowercase_Letter Lt Titlecase_Letter "
    "Lm Modifier_Letter Lo Other_Letter M Mark Combining_Mark Mn Nonspacing_Mark "
    "Mc Spacing_Mark Me Enclosing_Mark N Number Nd Decimal_Number digit Nl Letter_Number "
    "No Other_Number P Punctuation punct Pc Connector_Punctuation Pd Dash_Punctuation "
    "Ps Open_Punctuation Pe Close_Punctuation Pi Initial_Punctuation Pf Final_Punctuation "
    "Po Other_Punctuation S Symbol Sm Math_Symbol Sc Currency_Symbol Sk Modifier_Symbol "
    "So Other_Symbol Z Separator Zs Space_Separator Zl Line_Separator Zp Paragraph_Separator "
    "C Other Cc Control cntrl Cf Format Co Private_Use Cn Unassigned"
)
_BINARY = _words(
    "ASCII ASCII_Hex_Digit AHex Alphabetic Alpha Any Assigned Bidi_Control Bidi_C Case_Ignorable "
    "CI Cased Changes_When_Casefolded CWCF Changes_When_Casemapped CWCM Changes_When_Lowercased "
    "CWL Changes_When_Titlecased CWT Changes_When_Uppercased CWU Dash Default_Ignorable_Code_Point "
    "DI Deprecated Dep Diacritic Dia Emoji Emoji_Component EComp Emoji_Modifier EMod "
    "Emoji_Modifier_Base EBase Emoji_Presentation EPres Extended_Pictographic ExtPict Extender Ext "
    "Grapheme_Base Gr_Base Grapheme_Extend Gr_Ext Hex_Digit Hex ID_Continue IDC ID_Start IDS "
    "Ideographic Ideo Join_Control Join_C Logical_Order_Exception LOE Lowercase Lower Math "
    "Noncharacter_Code_Point NChar Pattern_Syntax Pat_Syn Pattern_White_Space Pat_WS "
    "Quotation_Mark QMark Radical Regional_Indicator RI Sentence_Terminal STerm Soft_Dotted SD "
    "Terminal_Punctuation Term Unified_Ideograph UIdeo Uppercase Upper Variation_Selector VS "
    "White_Space space XID_Continue XIDC XID_Start XIDS"
)
_SCRIPT = re.compile(r"(?:sc|scx|Script|Script_Extensions)=[A-Z][A-Za-z_]{2,40}")


def property_class(name: str, *, complement: bool) -> Class:
    r"""The characters with a Unicode property, as ``\p{name}`` names it, or those without.

    Raises:
        Untranslatable: There is no such property.
    """
    category = name.removeprefix("General_Category=").removeprefix("gc=")
    if name not in _BINARY and category not in _CATEGORIES and not _SCRIPT.fullmatch(name):
        raise Untranslatable(f"there is no Unicode property {name[:50]!r}")
    return Class(properties=(f"\\{'P' if complement else 'p'}{{{name}}}",))

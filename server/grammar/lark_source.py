"""The source of a Lark grammar that a request gives, rewritten terminal by terminal.

Read is llguidance's variant of Lark
(https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md), of which the compiler judges
everything but the terminals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal, NamedTuple

from server.grammar.pattern_classes import Class, Untranslatable
from server.grammar.pattern_parts import One, Part, text
from server.grammar.rust_patterns import parse_rust

_TOKEN = re.compile(
    r"""
    (?P<comment> (?://|\#) [^\n]* )
  | (?P<range> "(?:[^"\\\n]|\\.)+" \s* \.\. \s* "(?:[^"\\\n]|\\.)+" )
  | (?P<text> "(?:[^"\\\n]|\\.)*" i? )
  | (?P<expression> / (?:[^/\\\n]|\\.)+ / [imslux]* )
  | (?P<head> ^[ \t]* [?!]? \w+ (?:\.\d+)? \s* (?:\[[^\]\n]*\])? \s* : )
  | (?P<import> %import \s+ common \s* (?: \. \s* \w+ (?: \s* -> \s* \w+ )? | \( [^)]* \) ) )
  | (?P<other> %(?:ignore\b)? | < | @ | ~ (?:\s*[0-9])? | \w+ | . | \n )
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|(.))", re.DOTALL
)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "b": "\b", "v": "\v", "0": "\0"}

# A choice; as many as a grammar for an answer may have.
_MOST_CHARACTERS = 100_000

_DECIMAL = r"(?:[0-9]+\.[0-9]*|\.[0-9]+)"
_EXPONENT = r"[eE][+-]?[0-9]+"
_FLOAT = rf"(?:[0-9]+{_EXPONENT}|{_DECIMAL}(?:{_EXPONENT})?)"
_COMMON = {
    "DIGIT": "[0-9]",
    "HEXDIGIT": "[a-fA-F0-9]",
    "INT": "[0-9]+",
    "SIGNED_INT": "[+-]?[0-9]+",
    "DECIMAL": _DECIMAL,
    "_EXP": _EXPONENT,
    "FLOAT": _FLOAT,
    "SIGNED_FLOAT": f"[+-]?{_FLOAT}",
    "NUMBER": f"(?:{_FLOAT}|[0-9]+)",
    "SIGNED_NUMBER": f"[+-]?(?:{_FLOAT}|[0-9]+)",
    "ESCAPED_STRING": r'"(?:[^"\\\n]|\\.)*"',
    "LCASE_LETTER": "[a-z]",
    "UCASE_LETTER": "[A-Z]",
    "LETTER": "[A-Za-z]",
    "WORD": "[A-Za-z]+",
    "CNAME": "[_A-Za-z][_A-Za-z0-9]*",
    "WS_INLINE": r"[ \t]+",
    "WS": r"[ \t\f\r\n]+",
    "CR": r"\r",
    "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+",
    "SH_COMMENT": r"#[^\n]*",
    "CPP_COMMENT": r"//[^\n]*",
    "C_COMMENT": r"/\*(?:[^*]|\*+[^*/])*\*+/",
    "SQL_COMMENT": r"--[^\n]*",
}
"""The terminals of Lark's library that can be imported."""


class Place(NamedTuple):
    """Where a text or an expression stands in a grammar.

    Attributes:
        kind: In a rule, in a terminal, or in a list of what is ignored between terminals.
        last: Whether nothing of its terminal follows.
        ignoring: Whether the grammar ignores anything between terminals.
    """

    kind: Literal["rule", "terminal", "ignored"]
    last: bool
    ignoring: bool


class Made(NamedTuple):
    """What stands for a text or an expression; a rule only where its place is in a rule."""

    body: str
    is_rule: bool = False


Rewrite = Callable[[Part, Place], Made]


def rewritten(source: str, rewrite: Rewrite) -> str:
    """``source`` with what ``rewrite`` makes of each of its texts and expressions.

    Raises:
        Untranslatable: The source holds something beside rules and terminals, or ``rewrite`` raised
            it.
    """
    if len(source) > _MOST_CHARACTERS:
        raise Untranslatable(f"it has more than {_MOST_CHARACTERS} characters")
    return _Rewriting(source, rewrite).run()


class _Rewriting:
    """Gives every text and expression a name, so that its definition may be of any kind."""

    def __init__(self, source: str, rewrite: Rewrite) -> None:
        self._source = source
        self._rewrite = rewrite
        self._ignoring = "%ignore" in source
        self._kind: Literal["rule", "terminal", "ignored"] = "rule"
        free = next(name for n in count() if (name := f"text{n}_") not in source.lower())
        self._names = (f"{free}{n}" for n in count())
        self._known: dict[Made, str] = {}
        self._added: list[str] = []

    def run(self) -> str:
        found = [(each.lastgroup or "", each[0]) for each in _TOKEN.finditer(self._source)]
        lasts = []
        following = "\n"
        for _, token in reversed(found):
            lasts.append(following[:1] in "\n|)+*?~%/#")
            following = token if token.strip(" \t") else following
        pieces = [
            self._piece(kind, token, last=last)
            for (kind, token), last in zip(found, reversed(lasts), strict=True)
        ]
        return "".join(pieces) + "\n" + "".join(self._added)

    def _piece(self, kind: str, written: str, *, last: bool) -> str:
        match kind:
            case "text" if content := _unquoted(written.removesuffix("i")[1:-1]):
                part = text(content, ignore_case=written.endswith("i"))
                return self._name(part, last=last)
            case "range":
                return self._name(_range(written), last=last)
            case "expression":
                body, _, flags = written[1:].rpartition("/")
                return self._name(_expression(body, flags), last=last)
            case "import":
                return "".join(self._imported(written))
            case _:
                return self._other(kind, written)

    def _other(self, kind: str, written: str) -> str:
        """What is neither a text nor an expression, as it is but for comments."""
        if written in {"%", "<", "@", "~"}:
            raise Untranslatable(f"the sign '{written}' cannot be enforced there")
        if kind == "head":
            self._kind = "terminal" if written.strip(" \t?!_:")[:1].isupper() else "rule"
        elif written == "%ignore":
            self._kind = "ignored"
        elif written == "\n" and self._kind == "ignored":
            self._kind = "rule"
        return "" if kind == "comment" else written

    def _imported(self, statement: str) -> Iterator[str]:
        names = re.findall(r"\w+", statement)[2:]
        pairs = [names] if "->" in statement else [[name, name] for name in names]
        self._kind = "terminal"
        for name, alias in pairs:
            if name not in _COMMON:
                raise Untranslatable(f"there is no terminal 'common.{name[:50]}'")
            yield f"{alias}: {self._name(parse_rust(_COMMON[name]), last=True)}\n"

    def _name(self, part: Part, *, last: bool) -> str:
        made = self._rewrite(part, Place(self._kind, last, self._ignoring))
        if made not in self._known:
            name = next(self._names)
            name = name if made.is_rule else name.upper()
            self._known[made] = name
            self._added.append(f"{name}: {made.body}\n")
        return self._known[made]


def _expression(body: str, flags: str) -> Part:
    if unknown := set(flags) - set("isu"):
        raise Untranslatable(f"the flag '{min(unknown)}' of an expression cannot be enforced")
    return parse_rust(body, ignore_case="i" in flags, dot_all="s" in flags)


def _range(token: str) -> Part:
    first, last = (
        _unquoted(each.strip()[1:-1]) for each in re.split(r"(?<=\")\s*\.\.\s*(?=\")", token)
    )
    if len(first) != 1 or len(last) != 1 or first > last:
        raise Untranslatable("a range needs two characters in order")
    return One(Class.of(ord(first), ord(last)))


def _unquoted(content: str) -> str:
    return _ESCAPE.sub(_character, content)


def _character(found: re.Match[str]) -> str:
    if found[4]:
        return _CONTROLS.get(found[4], found[4])
    code = int(found[1] or found[2] or found[3], 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise Untranslatable(f"{found[0]} is not a character")
    return chr(code)

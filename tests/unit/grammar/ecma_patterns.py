r"""Patterns, and the texts that a JavaScript engine finds them in.

``python -m tests.unit.grammar.ecma_patterns`` asks node and records its answers in
``ecma_patterns.json``: for each pattern, texts in which it is found and others in which it is not.
The texts are drawn from the grammar made of the pattern, changed by a character, or fixed.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from server.grammar.patterns import Untranslatable, whole
from tests.unit.grammar.subjects import matcher

RECORD = Path(__file__).with_name("ecma_patterns.json")
_MOST_OF_A_KIND = 6

# Read as JavaScript does: with the flag for Unicode where the pattern is valid with it.
_SCRIPT = r"""
const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
const read = (pattern) => {
  const flags = pattern.startsWith("(?i)") ? "i" : "";
  const body = flags ? pattern.slice(4) : pattern;
  try { return new RegExp(body, flags + "u"); } catch { return new RegExp(body, flags); }
};
const answers = asked.map(([pattern, texts]) => {
  try {
    const expression = read(pattern);
    // Without the flag a character beyond U+FFFF counts as two.
    const comparable = (text) => expression.unicode || !/[\ud800-\udfff]/.test(text);
    return texts.map((text) => comparable(text) ? expression.test(text) : null);
  } catch { return null; }
});
console.log(JSON.stringify(answers));
"""

_ATOMS = [
    *("a", "[a-c]", "[^a-c]", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", ".", r"\.", r"\/", r"\-"),
    *(r"\x41", r"\u0041", r"\u{1F600}", r"\ud83d\ude00", r"\cA", r"\0", r"\t", r"\n", r"\v", r"\f"),
    *("[&&a]", "[a&&b]", "[^a&&b]", "[a--z]", "[!--]", "[^!--]", "[a~~b]", "[~]", "[|]", "[[]"),
    *("[[]a]", r"[^[\]]", r"[\]]", r"[\b]", "[-a]", "[a-]", r"[\w-]", r"[\d-x]", r"[\-.]", "[.]"),
    *("[$^]", "[a^]", r"[\\]", r"[\/]", r"[\s\S]", "[^]", "[]", r"[^\s]", r"[^\d.]", r"[^\w\s]"),
    *(r"\p{L}", r"\P{L}", r"\p{Lu}", r"\p{Script=Greek}", r"[\p{L}\d]", r"[^\p{L}]", r"\p{Nd}"),
    *("é", "😀", "[é-ü]", "[😀-😂]", "日", '"', "'", "#", "@", "~", "&", "-", ",", "=", "!", ":"),
    *(
        "{",
        "}",
        "]",
        "a{",
        "a{x}",
        "a{,2}",
        r"\_",
        r"\@",
        r"\:",
        r"\ ",
        r"\"",
        r"\c",
        r"\8",
        r"\07",
    ),
    *(r"\xg", r"\u12", "(?:)", "()", "(a|)", "(?<n>a)", "(?:a|b)", "((a)b)", "a|b", "|", "\u2028"),
    *(r"[\cA-\cZ]", r"[\0-\x1f]", r"[\u2028\u2029]", r"[\u{1F600}-\u{1F64F}]", r"[^\x00-\x7F]"),
]
_COUNTS = ["*", "+", "?", "{2}", "{1,2}", "{2,}", "*?", "{0}"]
_COUNTED = ["a", "[a-c]", r"\d", "(?:ab)", "(a|b)", ".", r"\u{1F600}", "é", r"\s"]
_SHAPES = ["{}", "^{}", "{}$", "^{}$"]
_ANCHORED = [
    *(
        "^",
        "$",
        "^$",
        "$^",
        "^a|b$",
        "(^a|b$)",
        "(?:^|,)a",
        "a(?:,|$)",
        "a^b",
        "a$b",
        "a*^b",
        "a$b*",
    ),
    *(
        "(^a)?b",
        "(^)*a",
        "(?:^a)+",
        "(?:^|a){2}",
        "(a$|b)c?",
        "^(?:a|^b)$",
        "(|^)a",
        "^^a$$",
        "x*$",
    ),
    *("^(a|b)?$", "^a?b?$", "(?:a|$)(?:^|b)", "(^a$)|(^b$)", "^(?:^a|b)", "(?:a$)?", "^a*$|^b+$"),
]
_REAL = [
    r"^[A-Z]{2}-[0-9]{4}$",
    r"^\d{4}-\d{2}-\d{2}$",
    r"^\+?[1-9]\d{1,14}$",
    r"^(\([0-9]{3}\))?[0-9]{3}-[0-9]{4}$",
    r"^#(?:[0-9a-fA-F]{3}){1,2}$",
    r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$",
    r"^https?:\/\/[^\s/$.?#].[^\s]*$",
    r"^[\w-]+$",
    r"^[^\s@]+@[^\s@]+\.[^\s@]+$",
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$",
    r"^[a-z0-9]+(?:-[a-z0-9]+)*$",
    r"^(?:[01]\d|2[0-3]):[0-5]\d$",
    r"^[A-Za-z_$][\w$]*$",
    r"^\$\{[^}]+\}$",
    r"^\/(?:[^/]+\/)*$",
    r"^[^<>&]*$",
    r"^.{1,10}$",
    r"^\S+$",
    r"\S",
    r"^\s*$",
    r"^[^\r\n]*$",
    r"^(?:true|false|null)$",
    r"^0x[\da-f]+$",
    r"^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$",
    r"^[\p{L}\p{M}' .-]+$",
    r"^[^\x00-\x1f]*$",
    r"^\[(?:\d+(?:,\d+)*)?\]$",
    r"^[+\-*/%&|^~!=<>]+$",
    r"^[^\\]*(?:\\.[^\\]*)*$",
    r"^(?<year>\d{4})(?<rest>.*)$",
    r"(?i)^yes|no$",
    r"(?i)[k-m]",
    r"(?i)^[^s]$",
    r"(?i)^\w$",
    r"(?i)^\W$",
    r"(?i)^ß$",
    r"^\u00e9+$",
    r"^[^a-zA-Z0-9]+$",
    r"^x-",
    r"_id$",
    r"^(?!)$",
    r"^S_",
    r"f.*o",
    r"^á$",
    r"^🐲*$",
    r"[a-z]cole",
    r"^\W+$",
    r"^\p{Letter}+$",
    r"^\p{digit}+$",
    r"^\cC$",
    r"^\S(|(.|\n)*\S)\Z$",
]
_PROBES = [
    *(
        "",
        "a",
        "b",
        "ab",
        "ba",
        "abc",
        "A",
        "z",
        "0",
        "12",
        "a1",
        " ",
        "-",
        "_",
        "é",
        "ß",
        "ſ",
        "K",
    ),
    *(
        "\u212a",
        "٣",
        "日",
        "α",
        "😀",
        "🐲",
        "\n",
        "\r",
        "\t",
        "\x0b",
        "\x0c",
        "\x08",
        "\x01",
        "\x03",
    ),
    *("\x00", "\x7f", "\x85", "\u00a0", "\u2028", "\u2029", "\ufeff", "\u180e", "\u3000", "a\nb"),
    *("&", "&&", "~", "|", "!", "+", ",", ".", "/", "[", "]", "[]", "a]", "{", "}", "^", "$", "\\"),
    *("a,a", "b,", "aa", "aab", "aaa", "bbb", "cab", "\\c", "x", "xx", "8", "u12", "xg", '"', "'"),
]


class Verdicts(NamedTuple):
    """A pattern, some texts in which it is found, and some in which it is not."""

    pattern: str
    found: list[str]
    missing: list[str]


def patterns() -> list[str]:
    """All patterns, each once."""
    shaped = (shape.replace("{}", atom, 1) for atom, shape in product(_ATOMS, _SHAPES))
    counted = (f"^{atom}{count}$" for atom, count in product(_COUNTED, _COUNTS))
    pairs = (f"^{one}{two}" for one, two in zip(_ATOMS, reversed(_ATOMS), strict=True))
    return list(dict.fromkeys([*_ANCHORED, *_REAL, *shaped, *counted, *pairs]))


def texts(pattern: str, choose: random.Random) -> list[str]:
    """Texts to try a pattern with."""
    made: list[str] = []
    try:
        expression = whole(pattern)
    except Untranslatable:
        return list(_PROBES)
    for _ in range(6):
        if (text := _drawn(expression, choose)) is not None:
            made += [text, *_changed(text, choose)]
    return list(dict.fromkeys([*made, *_PROBES]))


def lark(expression: str) -> str:
    """The grammar of the texts that an expression matches."""
    return json.dumps({"grammars": [{"lark_grammar": f"start: /(?:{expression})/"}]})


def _drawn(expression: str, choose: random.Random) -> str | None:
    """A text that the grammar allows."""
    subject = matcher(lark(expression))
    written = bytearray()
    while len(written) < 12 or not subject.is_accepting():
        mask = int.from_bytes(subject.compute_bitmask(), "little")
        allowed = [byte for byte in range(256) if mask >> byte & 1]
        if subject.is_accepting() and (not allowed or choose.random() < 0.3):
            break
        if not allowed or len(written) > 60:
            return None
        likely = [byte for byte in allowed if 32 <= byte < 127]
        byte = choose.choice(likely if likely and choose.random() < 0.7 else allowed)
        subject.consume_token(byte)
        written.append(byte)
    return written.decode() if subject.is_accepting() else None


def _changed(text: str, choose: random.Random) -> Iterator[str]:
    place = choose.randrange(len(text) + 1)
    other = choose.choice([each for each in _PROBES if len(each) == 1])
    yield text[:place] + other + text[place:]
    yield text[:place] + other + text[place + 1 :]
    yield text[:place] + text[place + 1 :]


def ask(asked: Iterable[tuple[str, list[str]]]) -> list[list[bool | None] | None]:
    """What node says of each text, None where that means little; None for a pattern it refuses."""
    body = json.dumps(list(asked))
    ran = subprocess.run(
        ["node", "-e", _SCRIPT], input=body, capture_output=True, text=True, check=True
    )
    answers: list[list[bool | None] | None] = json.loads(ran.stdout)
    return answers


def recorded() -> list[Verdicts]:
    """The record; a pattern that JavaScript refuses has no texts."""
    return [Verdicts(*each) for each in json.loads(RECORD.read_text(encoding="utf-8"))]


def _record() -> None:
    choose = random.Random(0)
    asked = [(pattern, texts(pattern, choose)) for pattern in patterns()]
    lines = []
    for (pattern, tried), answers in zip(asked, ask(asked), strict=True):
        pairs = list(zip(tried, answers or (), strict=False))
        found = [text for text, is_found in pairs if is_found is True][:_MOST_OF_A_KIND]
        missing = [text for text, is_found in pairs if is_found is False][:_MOST_OF_A_KIND]
        lines.append(json.dumps([pattern, found, missing]))
    RECORD.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    _record()

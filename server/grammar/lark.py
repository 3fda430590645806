"""Grammars in llguidance's variant of Lark, written for one model's vocabulary.

The syntax: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from server.core.vocabulary import Vocabulary

ANY_TEXT = "/(?s:.*)/"
"""A terminal for any text; control tokens are not text."""


class Spelling:
    """Writes texts of a reply format in Lark: control tokens by id, everything else quoted.

    llguidance matches a control token by its id only. USER_DEFINED tokens are ordinary text.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        controls = [token for token in vocabulary.special_tokens if token.type != "user_defined"]
        self._ids = {token.text: token.id for token in controls if token.text}
        self._ends = {each for each in self._ids.values() if vocabulary.is_end_of_generation(each)}
        self._texts = {each: text for text, each in self._ids.items()}
        self._known: dict[str, list[str | int]] = {}

    def items(self, text: str) -> list[str | int]:
        """Split ``text`` into plain texts and ids of control tokens."""
        if text not in self._known:
            self._known[text] = self._taken_apart(text)
        return self._known[text]

    def _taken_apart(self, text: str) -> list[str | int]:
        present = sorted((each for each in self._ids if each in text), key=len, reverse=True)
        if not present:
            return [text] if text else []
        pieces = re.split(f"({'|'.join(map(re.escape, present))})", text)
        return [self._ids.get(piece, piece) for piece in pieces if piece]

    def text(self, items: Sequence[str | int]) -> str:
        """The text that `items` splits into ``items``."""
        return "".join(self._texts[item] if isinstance(item, int) else item for item in items)

    def literal(self, text: str) -> str:
        """``text`` in Lark."""
        return sequence(self.items(text))

    def closing(self, text: str) -> str:
        """``text`` at the end of a reply, in Lark.

        Stops before the first end-of-generation token: where the grammar ends, llguidance allows
        every such token.
        """
        items = self.items(text)
        end = next((n for n, item in enumerate(items) if item in self._ends), len(items))
        return sequence(items[:end])

    def control_tokens(self, *, without: str) -> str:
        """Any one control token, except end-of-generation tokens and those in ``without``."""
        banned = {item for item in self.items(without) if isinstance(item, int)}
        ids = sorted({*self._ids.values()} - self._ends - banned)
        # In a run of consecutive ids, id minus index is constant.
        runs = (list(run) for _, run in groupby(enumerate(ids), lambda pair: pair[1] - pair[0]))
        ranges = ",".join(f"{run[0][1]}-{run[-1][1]}" for run in runs)
        return f"<[{ranges}]>" if ranges else ""


class Grammar:
    """Collects rules and names them; only ``start`` has a fixed name.

    Attributes:
        copied: The characters of definitions in all parts, counted by the parts' writers.
    """

    def __init__(self, spelling: Spelling) -> None:
        self.spelling = spelling
        self._lines: list[str] = []
        self._parts: list[dict[str, Any]] = []
        self._count = 0
        self.copied = 0

    def rule(self, body: str) -> str:
        """Add a rule; its name."""
        name = self._name("r")
        self._lines.append(f"{name}: {body}")
        return name

    def reserve(self) -> str:
        """A name for a rule that `define` adds later, so that the rule can refer to itself."""
        return self._name("r")

    def define(self, name: str, body: str) -> None:
        """Add the rule for a reserved name."""
        self._lines.append(f"{name}: {body}")

    def terminal(self, body: str, *, lazy: bool = False) -> str:
        """Add a terminal (one lexeme); its name. A lazy one ends at the first possible place."""
        name = self._name("T")
        self._lines.append(f"{name}: {body}")
        if not lazy:
            return name
        rule = self._name("r")
        self._lines.append(f"{rule}[lazy]: {name}")
        return rule

    def until(self, body: str, ending: str) -> str:
        """Text that the terminal ``body`` matches up to the first ``ending``, and ``ending``.

        A control token in ``ending`` ends the text also where it is spelt out as ordinary text,
        because the parser cannot tell the two apart.
        """
        items = self.spelling.items(ending)
        control = next((n for n, item in enumerate(items) if isinstance(item, int)), None)
        if control is None:
            return self.terminal(f"{body} {quoted(ending)}", lazy=True)
        body = f"({body} & {without(self.spelling.text(items[control : control + 1]))})"
        text = self.terminal(f"{body} {sequence(items[:control])}")
        return f"{text} {sequence(items[control:])}"

    def part(self, grammar: dict[str, Any]) -> str:
        """Add another grammar, in llguidance's JSON form; a reference to it in Lark."""
        name = self._name("g")
        self._parts.append({**grammar, "name": name})
        return f"@{name}"

    def mark(self) -> tuple[int, int, int]:
        """How much there is so far, for `reset`."""
        return len(self._lines), len(self._parts), self.copied

    def reset(self, mark: tuple[int, int, int]) -> None:
        """Drop all that was added after ``mark``."""
        lines, parts, self.copied = mark
        del self._lines[lines:], self._parts[parts:]

    def written(self, start: str) -> str:
        """The whole grammar in llguidance's JSON form; ``start`` is its first expression."""
        lark = "\n".join([f"start: {start}", *self._lines])
        return json.dumps({"grammars": [{"lark_grammar": lark}, *self._parts]})

    def _name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"


def quoted(text: str) -> str:
    """``text`` as a string in Lark."""
    return json.dumps(text)


def escaped(text: str) -> str:
    """``text`` as part of a regular expression in Lark."""
    return re.sub(r"[^A-Za-z0-9 ]", _escaped_character, text)


def sequence(items: Sequence[str | int]) -> str:
    """Texts and ids of control tokens, one after another."""
    return " ".join(f"<[{item}]>" if isinstance(item, int) else quoted(item) for item in items)


def one_of(alternatives: Sequence[str]) -> str:
    """Any one of ``alternatives``."""
    return f"({' | '.join(alternatives)})"


def without(text: str) -> str:
    """A terminal for texts in which ``text`` does not occur."""
    return f"({ANY_TEXT} & ~/(?s:.*){escaped(text)}(?s:.*)/)"


def _escaped_character(found: re.Match[str]) -> str:
    return f"\\x{{{ord(found[0]):x}}}"

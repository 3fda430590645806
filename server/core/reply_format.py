r"""How a family writes a reply: where reasoning, content and tool calls are in the raw text.

A format is data. Its patterns show the syntax as the chat template writes it, with placeholders for
what varies: ``<tool_call>\n{"name": "{name}", "arguments": {arguments}}\n</tool_call>``. The same
pattern is read (`parser`), written (`writer`) and derived from a template (`derive`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Literal

import msgspec

Dialect = Literal["json", "tagged", "pythonic", "gemma"]

GEMMA_QUOTE = '<|"|>'
_ARGUMENT = re.compile(r"\S.*\{key\}\s*\S.*\{value\}\s*\S", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{(?:name|arguments|id|index|key|value|string)\}")
_CONTROL_TOKENS = (
    re.compile(r"<[^<>\s]+>"),
    re.compile(r"\[[^\[\]\s\"]+\]"),
    re.compile(r"｜[^｜\s]+｜"),
)


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a sidecar's ``[reply]`` table: unknown keys are errors."""


class Reasoning(_Table, frozen=True, kw_only=True):
    """The reasoning block; ``calls`` says that the model may call tools inside it."""

    start: str
    end: str
    calls: bool = False


class Calls(_Table, frozen=True, kw_only=True):
    """How tool calls are written.

    ``call`` shows one call, with the placeholders ``{name}``, ``{arguments}``, ``{id}`` and
    ``{index}``; ``begin``, ``separator`` and ``end`` stand around and between several. ``dialect``
    is the language of the arguments; the tagged one writes each argument as ``argument`` shows,
    with ``{key}``, ``{value}`` and, where the family marks strings, ``{string}`` (true or false).
    ``id`` is the form of an id the model does not write itself: ``{random:9}`` stands for nine
    letters and digits, ``{name}`` and ``{index}`` as in the call.
    """

    call: str
    begin: str = ""
    separator: str = ""
    end: str = ""
    several: bool = True
    dialect: Dialect = "json"
    argument: str = ""
    id: str = "call_{random:24}"

    def __post_init__(self) -> None:
        """Check what a reader needs. Raises ValueError."""
        if "{name}" not in self.call or "{arguments}" not in self.call:
            raise ValueError("`call` needs {name} and {arguments}")
        if self.dialect == "tagged" and not _ARGUMENT.search(self.argument):
            raise ValueError("`argument` needs texts around {key} and {value}")


class Channels(_Table, frozen=True, kw_only=True):
    """A reply made of messages, each with a header that says what its body is.

    A header runs from one of ``start`` to ``message``, the body from there to one of ``end`` or the
    next header. A header that equals ``content`` announces content, one in which ``call`` is found
    a tool call (its body is the arguments), one that holds ``reasoning`` reasoning, any other
    content.

    For writing: ``answer`` is the header of the message that answers, ``asides`` those of messages
    that may come before it, and ``calling`` that of a message that holds calls.
    """

    start: tuple[str, ...]
    message: str
    end: tuple[str, ...] = ()
    reasoning: str | None = None
    content: str | None = None
    call: str | None = None
    answer: str = ""
    asides: tuple[str, ...] = ()
    calling: str = ""


class ReplyFormat(_Table, frozen=True, kw_only=True):
    """The reply format of a family.

    ``framing`` are texts around content that are not part of it. ``stops`` are texts that end an
    answer besides the end-of-generation tokens.
    """

    name: str
    reasoning: Reasoning | None = None
    calls: Calls | None = None
    channels: Channels | None = None
    framing: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()

    @property
    def trigger(self) -> str | None:
        """The text with which a tool call opens, for switching a constraint on; None: no calls.

        A brace means that a call is a bare JSON object at the start of the reply.
        """
        if self.channels and self.channels.call:
            return next(iter(_literals(self.channels.call)), self.channels.start[0])
        if self.calls is None:
            return None
        first = _literals(self.calls.begin or self.calls.call)[0].split()[0]
        return "{" if first.startswith("{") else first.removesuffix("[") or "["

    @property
    def reasoning_edges(self) -> tuple[str, str]:
        """The texts around reasoning, without white space; empty where there is none."""
        if self.reasoning is None:
            return "", ""
        return self.reasoning.start.strip(), self.reasoning.end.strip()

    def markers(self) -> frozenset[str]:
        """Texts of control tokens that a reply's detokenised text must show to be parsed."""
        literals = [text for pattern in self._patterns() for text in _literals(pattern)]
        tokens = [kind.findall(text) for text in literals for kind in _CONTROL_TOKENS]
        return frozenset((*chain.from_iterable(tokens), *filter(None, self.reasoning_edges)))

    def prefix_of(self, prompt: str) -> str:
        """The end of ``prompt`` that belongs to the reply, such as an opened reasoning block."""
        optional = []
        if self.channels:
            starts = "|".join(re.escape(start.strip()) for start in self.channels.start)
            optional.append(rf"(?:{starts})(?:(?!{starts}).){{0,64}}\Z")
        if self.reasoning:
            start, end = map(re.escape, self.reasoning_edges)
            optional.append(rf"{start}\s*(?:{end}\s*)?\Z|{end}\s*\Z")
        found = re.search("|".join(optional), prompt, re.DOTALL) if optional else None
        return found.group() if found else ""

    def _patterns(self) -> Iterator[str]:
        yield from self.framing
        if self.reasoning:
            yield from self.reasoning_edges
        if self.calls:
            yield from (self.calls.begin, self.calls.call, self.calls.separator, self.calls.end)
            yield self.calls.argument
            if self.calls.dialect == "gemma":
                yield GEMMA_QUOTE
        if self.channels:
            yield from (*self.channels.start, self.channels.message, *self.channels.end)


def _literals(pattern: str) -> list[str]:
    return [literal for literal in _PLACEHOLDER.split(pattern) if literal.strip()]

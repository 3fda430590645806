"""Grammars for tool calls in a family's syntax."""

from __future__ import annotations

import re
from collections.abc import Sequence

from server.core.errors import InvalidConstraint, Locator
from server.core.reply_format import Calls
from server.core.request import Tool
from server.grammar.lark import Grammar, one_of, quoted
from server.grammar.leniency import NOT_WEAKENED, Weakness, Weaknesses
from server.grammar.pattern_classes import Untranslatable
from server.reply.custom_tools import INPUT
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.table import dialect_of
from server.reply.tool_schema import arguments_of, unenforceable, ungrammatical

_HOLE = re.compile(r"\{(name|arguments|id|index)\}")
_ID_PART = re.compile(r"\{(name|index|random):?(\d*)\}")
# More than `grammar.MOST_CALLS` needs.
_INDEX = "/[0-9]{1,3}/"


class CallsWriter:
    """Writes the rules of calls.

    Args:
        calls: The family's call syntax.
        tools: The request's tools.
        only: The name of the one tool that may be called; None: any.
        most: The most calls in one answer.
        grammar: Takes the rules.
        weaknesses: How weak the schemas of some tools are made, by their names.
        header: The header of a message with one call, with ``{name}``; empty if calls have none.
        between: The text between messages with calls.

    Attributes:
        loosened: What the rules do not enforce, as paths into the request.

    Raises:
        InvalidConstraint: The schema of a tool is malformed, or strict and not enforceable.
    """

    def __init__(
        self,
        calls: Calls,
        tools: Sequence[Tool],
        *,
        only: str | None,
        most: int,
        grammar: Grammar,
        weaknesses: Weaknesses,
        header: str = "",
        between: str = "",
    ) -> None:
        self._most = most if calls.several else 1
        self._grammar = grammar
        self._literal = grammar.spelling.literal
        self._id = calls.id
        self._begin, self._separator, self._end = calls.begin, calls.separator, calls.end
        self._call_pattern = calls.call
        if header:
            self._call_pattern = f"{header}{calls.begin}{calls.call}{calls.end}"
            self._begin, self._separator, self._end = "", between, ""
        self.loosened: list[Locator] = []
        self._arguments = {
            tool.name: self._written(
                tool, index, weaknesses.get(tool.name, NOT_WEAKENED), dialect_of(calls)
            )
            for index, tool in enumerate(tools)
            if only in {None, tool.name}
        }

    def write(self, opened: str = "") -> str:
        """Up to the most calls, in Lark, without ``opened``, which the reply already holds."""
        begin, skipped = self._begin, 0
        if begin:
            begin = begin[len(opened) :]
        else:
            skipped = len(opened)
        call = self._any_call(0)
        first = self._any_call(skipped) if skipped else call
        return f"{self._literal(begin)} {self._with_more(first, call)}".strip()

    def write_behind_head(self, name: str) -> str:
        """Up to the most calls, of which the first is to ``name``, from its arguments on."""
        first = self._call(self._call_pattern[self._call_pattern.index("{arguments}") :], name)
        return self._with_more(first, self._any_call(0) if self._most > 1 else "")

    def _with_more(self, first: str, call: str) -> str:
        parts = [first]
        if self._most > 1:
            separator = self._literal(self._separator)
            parts.append(f"({separator} {call}){{0,{self._most - 1}}}")
        return " ".join(filter(None, [*parts, self._grammar.spelling.closing(self._end)]))

    def _written(self, tool: Tool, index: int, weakness: Weakness, dialect: Dialect) -> str:
        """The arguments of a call to ``tool``, in Lark."""
        if tool.grammar is not None:
            try:
                return dialect.free_form(INPUT, tool.grammar, self._grammar)
            except Untranslatable as error:
                raise ungrammatical(tool, index, f"{error}.") from error
        arguments = arguments_of(tool, index, weakness)
        try:
            written = dialect.grammar(arguments, self._grammar)
        except InvalidConstraint as error:
            raise unenforceable(tool, index, error.message) from error
        loosened = arguments.leniency.loosened
        self.loosened += [("tools", index, "parameters", *path) for path in loosened]
        return written

    def _any_call(self, skipped: int) -> str:
        pattern = self._call_pattern[skipped:]
        return self._grammar.rule(one_of([self._call(pattern, name) for name in self._arguments]))

    def _call(self, pattern: str, name: str) -> str:
        *pieces, last = _HOLE.split(pattern)
        written = [
            self._hole(piece, name) if place % 2 else self._literal(piece)
            for place, piece in enumerate(pieces)
        ]
        return " ".join(filter(None, [*written, self._grammar.spelling.closing(last)]))

    def _hole(self, hole: str, name: str) -> str:
        match hole:
            case "name":
                return quoted(name)
            case "arguments":
                return self._arguments[name]
            case "id":
                return self._id_of(name)
            case _:
                return _INDEX

    def _id_of(self, name: str) -> str:
        """An id in the form of the ids for calls without one."""
        pieces = _ID_PART.split(self._id)
        written = [quoted(text) for text in pieces[:1] if text]
        for kind, length, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            if kind == "name":
                written.append(quoted(name))
            else:
                written.append(f"/[a-zA-Z0-9]{{{length}}}/" if kind == "random" else _INDEX)
            written += [quoted(text)] if text else []
        return " ".join(written)

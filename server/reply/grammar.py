"""The grammar of a whole reply: reasoning, then calls or content, in the family's format.

Reasoning and free text may be anything. A call must match its tool's schema from where it opens.
Content must match the request's constraint, if there is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple

from server.core.errors import Locator
from server.core.reply_format import Calls, Channels, Reasoning, ReplyFormat
from server.core.request import Tool, ToolChoice
from server.grammar.lark import ANY_TEXT, Grammar, Spelling, escaped, one_of, without
from server.grammar.leniency import Weaknesses
from server.reply.call_grammar import CallsWriter
from server.reply.forms import TWO_MARKERS
from server.reply.syntax import CallSyntax, compile_calls

MOST_CALLS = {"auto": 32, "required": 8, "named": 1}
"""The most calls in one answer, by the mode of the request's tool choice.

Choices. A small model that must call tends to go on up to the limit, so it is lower there. A
request that names a tool wants one call.
"""

# White space after reasoning, as much as models write there; a choice.
_SPACE = r"/\s{1,8}/?"

# A member that models write before the name in a call without a marker.
_TYPE = r'"type"\s*:\s*"function"\s*'


class ReplyGrammar(NamedTuple):
    """A grammar in llguidance's JSON form, and the places of what it loosened in the request."""

    text: str
    loosened: list[Locator]


def reply_grammar(
    reply_format: ReplyFormat | None,
    *,
    prefix: str,
    tools: Sequence[Tool],
    choice: ToolChoice,
    content: str | None,
    spelling: Spelling,
    weaknesses: Weaknesses = MappingProxyType({}),
) -> ReplyGrammar | None:
    """The grammar of a reply; None if every reply is allowed.

    Args:
        reply_format: The family's format; None if replies are content only, without tools.
        prefix: The end of the prompt that belongs to the reply (an opened reasoning block).
        tools: The request's tools; empty if the reply may not call.
        choice: The request's tool choice.
        content: A grammar for the content, in llguidance's JSON form; None: any content.
        spelling: Writes texts for the model's vocabulary.
        weaknesses: How weak the schemas of some tools are made, by their names.

    Raises:
        InvalidConstraint: The schema of a tool, which is named, is malformed or not enforceable.
    """
    if not tools and content is None:
        return None
    form = reply_format or ReplyFormat(name="content")
    writer = _ReplyWriter(form, prefix, choice, content, Grammar(spelling))
    writer.offer(tools, weaknesses)
    text = writer.write()
    return None if text is None else ReplyGrammar(text, writer.loosened)


class _ReplyWriter:
    def __init__(
        self,
        reply_format: ReplyFormat,
        prefix: str,
        choice: ToolChoice,
        content: str | None,
        grammar: Grammar,
    ) -> None:
        self._format = reply_format
        self._prefix = prefix
        self._choice = choice
        self._content = content
        self._spelling = grammar.spelling
        self._grammar = grammar
        self._names: list[str] = []
        self._calls: CallsWriter | None = None
        self.loosened: list[Locator] = []

    def offer(self, tools: Sequence[Tool], weaknesses: Weaknesses) -> None:
        if tools:
            self._names = [tool.name for tool in tools]
            self._calls = self._calls_writer(tools, weaknesses)
            self.loosened = self._calls.loosened

    def write(self) -> str | None:
        channels = self._format.channels
        start = self._messages(channels) if channels and self._prefix else self._plain()
        return self._content if start is None else self._grammar.written(start)

    @property
    def _must_call(self) -> bool:
        return self._choice.mode in {"required", "named"}

    @property
    def _call_syntax(self) -> Calls:
        assert self._format.calls
        return self._format.calls

    def _calls_writer(self, tools: Sequence[Tool], weaknesses: Weaknesses) -> CallsWriter:
        channels = self._format.channels
        header = between = ""
        if channels and channels.calling:
            header = channels.calling + channels.message
            between = channels.end[0] + self._prefix
        return CallsWriter(
            self._call_syntax,
            tools,
            only=self._choice.name,
            most=MOST_CALLS[self._choice.mode] if self._choice.parallel else 1,
            grammar=self._grammar,
            weaknesses=weaknesses,
            header=header,
            between=between,
        )

    def _enforced_content(self) -> str:
        assert self._content is not None
        (grammar,) = json.loads(self._content)["grammars"]
        return self._grammar.part(grammar)

    # --- content with reasoning before it and calls in it ---

    def _plain(self) -> str | None:
        reasoning = self._format.reasoning
        if self._calls and self._must_call:
            return f"{self._thoughts(reasoning)} {self._calls.write()}"
        if self._content is None:
            # If calls may stand inside reasoning, the rule for free text covers both.
            apart = reasoning if reasoning and not reasoning.calls else None
            return f"{self._thoughts(apart)} {self._free_text(apart)}"
        thoughts = self._thoughts(reasoning)
        framing = [self._spelling.literal(text) for text in self._format.framing]
        if not (self._calls or thoughts or framing):
            return None
        content = self._enforced_content()
        if framing:
            content = f"{one_of(framing)}? {content} {one_of(framing)}?"
        if self._calls:
            content = one_of([content, self._calls.write()])
        return f"{thoughts} {content}"

    def _thoughts(self, reasoning: Reasoning | None) -> str:
        """The reasoning block: its rest if the prompt opened it, else an optional whole one."""
        if reasoning is None:
            return ""
        start, end = self._format.reasoning_edges
        if end in self._prefix:
            return ""
        block = f"{self._grammar.until(ANY_TEXT, end)} {_SPACE}"
        if start in self._prefix:
            return block
        return f"({self._spelling.literal(start)} {block})?"

    def _free_text(self, reasoning: Reasoning | None) -> str:
        assert self._calls
        syntax = compile_calls(self._call_syntax)
        if syntax.bare:
            return self._text_or_bare_call(syntax)
        start = self._format.reasoning_edges[0] if reasoning and not self._prefix else ""
        pattern, opened = self._trigger(syntax)
        items = self._spelling.items(opened)
        control = next((n for n, item in enumerate(items) if isinstance(item, int)), None)
        others = self._spelling.control_tokens(without=opened + start)
        # Reasoning has a rule of its own, in which the text of a call is not a call.
        no_thoughts = rf" & ~/\s*{escaped(start)}(?s:.*)/" if start else ""
        if control is not None:
            opened = self._spelling.text(items[: control + 1])
            spelt_out = self._spelling.text(items[control : control + 1])
            text = self._grammar.terminal(f"/(?s:.+)/ & {without(spelt_out)}{no_thoughts}")
            pieces = f"({text}? {others})*" if others else ""
            ways = [f"{text}? <[{items[control]}]> {self._calls.write(opened)}"]
        else:
            text = self._grammar.terminal(f"/(?s:.+)/{no_thoughts}")
            pieces = f"({text}? {others})*" if others else ""
            trigger = self._grammar.terminal(f"/(?s:.*){pattern}/{no_thoughts}", lazy=True)
            ways = [f"{trigger} {self._calls.write(opened)}"]
        if second := self._second_marker():
            pattern = escaped(second.split()[-1])
            trigger = self._grammar.terminal(f"/(?s:.*){pattern}/{no_thoughts}", lazy=True)
            ways.append(f"{trigger} {self._calls.write(second)}")
        return f"{pieces} {one_of([text, *ways])}?"

    def _second_marker(self) -> str:
        """The beginning of a call up to its second marker, which models write without the first.

        Empty if calls open with one marker, or in a section.
        """
        found = TWO_MARKERS.match(self._call_syntax.call)
        return found.group() if found and not self._call_syntax.begin else ""

    def _text_or_bare_call(self, syntax: CallSyntax) -> str:
        """Free text, or a call without a marker, recognised only at the start.

        Text may be JSON too, unless it names a tool of the request or has the keys of a call. A
        call opens with one terminal, up to its arguments: until there it may still be text.
        """
        assert self._calls
        others = self._spelling.control_tokens(without="")
        more = f"({others} /(?s:.+)/?)*" if others else ""
        heads = self._bare_heads(syntax)
        if not heads:
            text = self._grammar.terminal(rf"/\s*[^\s{escaped(syntax.trigger)}](?s:.*)/")
            return f"{one_of([f'{text} {more}', f'{_SPACE} {self._calls.write()}'])}?"
        calls = []
        for name, head in heads.items():
            opening = self._grammar.terminal(f"/{head}/", lazy=True)
            calls.append(f"{opening} {_SPACE} {self._calls.write_behind_head(name)}")
        like_calls = rf"/\s*{self._like_call(syntax)}(?s:.*)/"
        text = self._grammar.terminal(rf"/\s*\S(?s:.*)/ & ~{like_calls}")
        return f"{one_of([f'{text} {more}', *calls])}?"

    def _bare_heads(self, syntax: CallSyntax) -> dict[str, str]:
        """Regular expressions for calls up to their arguments, by the name of the tool.

        None if the family writes more than the name there.
        """
        calls = self._call_syntax
        head, _, tail = f"{calls.begin}{calls.call}".partition("{arguments}")
        if not syntax.object or "{id}" in head or "{index}" in head or "{name}" in tail:
            return {}
        heads = {}
        for name in self._names:
            texts = re.findall(r'"\{name\}"|"\w+"|\S', head)
            atoms = [escaped(text.replace("{name}", name)) for text in texts]
            atoms.insert(texts.index("{") + 1, rf"({_TYPE},)?")
            heads[name] = r"\s*".join(["", *atoms])
        return heads

    def _like_call(self, syntax: CallSyntax) -> str:
        """A regular expression for the beginning of an object that is, or is meant as, a call."""
        assert syntax.object
        keys = syntax.object
        names = "|".join(escaped(name) for name in self._names)
        opening = r"\[\s*\{" if syntax.trigger == "[" else r"\{"
        if keys.name is None:
            return rf'{opening}\s*"({names})"\s*:'
        name, arguments = escaped(keys.name), escaped(keys.arguments)
        named = rf'"{name}"\s*:\s*"(({names})"|[^"]*"\s*,\s*"{arguments}")'
        return rf"{opening}\s*({_TYPE}|{named})"

    def _trigger(self, syntax: CallSyntax) -> tuple[str, str]:
        """The text that opens a call, as a regular expression and as the family writes it.

        If the trigger is an ordinary word, the next atom belongs to it too.
        """
        opening = self._call_syntax.begin or self._call_syntax.call
        atoms = (*syntax.begin, *syntax.open)
        needed = atoms[:2] if syntax.trigger[0].isalnum() else (syntax.trigger,)
        place = 0
        for atom in needed:
            place = opening.index(atom, place) + len(atom)
        return r"\s*".join(map(escaped, needed)), opening[:place]

    # --- messages with headers ---

    def _messages(self, channels: Channels) -> str:
        reopening = (channels.end[0] if channels.end else "") + self._prefix
        message = self._spelling.literal(channels.message)
        body = f"({' & '.join([ANY_TEXT, *map(without, channels.start)])})"
        mute = self._must_call or self._content is not None
        asides = [
            f"{self._spelling.literal(header)} {message} {self._grammar.until(body, reopening)}"
            for header in channels.asides
            if not mute or (channels.reasoning and channels.reasoning in header)
        ]
        before = f"{one_of(asides)}*" if asides else ""
        answer = f"{self._spelling.literal(channels.answer.removeprefix(self._prefix))} {message}"
        opened = self._prefix if self._call_syntax_starts_with(self._prefix) else ""
        calls = self._calls.write(opened) if self._calls else ""
        if self._must_call and calls:
            return f"{before} {calls}"
        if self._content is not None:
            answer = f"{answer} {self._enforced_content()}"
        else:
            text = self._grammar.terminal(body)
            calling = f"{self._grammar.until(body, reopening)} {calls}"
            answer = f"{answer} ({text} | {calling})"
        return f"{before} {one_of([answer, calls] if calls else [answer])}"

    def _call_syntax_starts_with(self, text: str) -> bool:
        calls = self._format.calls
        return calls is not None and (calls.begin or calls.call).startswith(text)

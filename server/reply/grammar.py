"""What a reply must match as a whole: reasoning, then calls or content, in the family's format.

Reasoning and free text may be anything. From where a call opens it is held to the tools' schemas,
and content, where something is asked of it, to that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from server.core.reply_format import Calls, Channels, Reasoning, ReplyFormat
from server.core.request import Tool, ToolChoice
from server.grammar.lark import ANY_TEXT, Grammar, Spelling, escaped, one_of, without
from server.reply.call_grammar import CallsWriter
from server.reply.syntax import CallSyntax, compile_calls

MOST_CALLS = {"auto": 32, "required": 8, "named": 1}
"""How many calls an answer may hold, by what it must do with the tools.

A small model that is made to call goes on calling up to the limit, so that it is lower there; and
whoever names a function wants one call.
"""

_SPACE = r"/\s{1,8}/?"


def reply_grammar(
    reply_format: ReplyFormat | None,
    *,
    prefix: str,
    tools: Sequence[Tool],
    choice: ToolChoice,
    content: str | None,
    spelling: Spelling,
) -> str | None:
    """The grammar of a reply; None where all replies are allowed.

    Args:
        reply_format: The family's; None if replies are content only (and there are no tools).
        prefix: The end of the prompt that belongs to the reply, such as an opened reasoning block.
        tools: The tools the reply may call; none where it may not.
        choice: What it must do with them.
        content: A grammar for the content, where something is asked of it.
        spelling: How to write control tokens.

    Raises:
        InvalidConstraint: A tool cannot be enforced; the message names it.
    """
    if not tools and content is None:
        return None
    writer = _ReplyWriter(
        reply_format or ReplyFormat(name="content"),
        prefix=prefix,
        tools=tools,
        choice=choice,
        content=content,
        spelling=spelling,
    )
    return writer.write()


class _ReplyWriter:
    def __init__(
        self,
        reply_format: ReplyFormat,
        *,
        prefix: str,
        tools: Sequence[Tool],
        choice: ToolChoice,
        content: str | None,
        spelling: Spelling,
    ) -> None:
        self._format = reply_format
        self._prefix = prefix
        self._choice = choice
        self._content = content
        self._spelling = spelling
        self._grammar = Grammar(spelling)
        self._calls = self._calls_writer(tools) if tools else None

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

    def _calls_writer(self, tools: Sequence[Tool]) -> CallsWriter:
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
            # Where calls may stand inside reasoning, that needs no rule of its own.
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
        """The reasoning block: what is left of it, or all of it for the model to choose."""
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
            return self._text_or_bare_call(syntax.trigger)
        start = self._format.reasoning_edges[0] if reasoning and not self._prefix else ""
        pattern, opened = self._trigger(syntax)
        items = self._spelling.items(opened)
        control = next((n for n, item in enumerate(items) if isinstance(item, int)), None)
        others = self._spelling.control_tokens(without=opened + start)
        # Reasoning that is text has its own rule, in which a call may be mentioned.
        no_thoughts = rf" & ~/\s*{escaped(start)}(?s:.*)/" if start else ""
        if control is not None:
            opened = self._spelling.text(items[: control + 1])
            spelt_out = self._spelling.text(items[control : control + 1])
            text = self._grammar.terminal(f"/(?s:.+)/ & {without(spelt_out)}{no_thoughts}")
            pieces = f"({text}? {others})*" if others else ""
            token = f"<[{items[control]}]>"
            return f"{pieces} {text}? ({token} {self._calls.write(opened)})?"
        text = self._grammar.terminal(f"/(?s:.+)/{no_thoughts}")
        pieces = f"({text}? {others})*" if others else ""
        trigger = self._grammar.terminal(f"/(?s:.*){pattern}/{no_thoughts}", lazy=True)
        return f"{pieces} ({text} | {trigger} {self._calls.write(opened)})?"

    def _text_or_bare_call(self, trigger: str) -> str:
        """Free text, or a call that nothing but its place at the start shows to be one."""
        assert self._calls
        others = self._spelling.control_tokens(without="")
        text = self._grammar.terminal(rf"/\s*[^\s{escaped(trigger)}](?s:.*)/")
        more = f"({others} /(?s:.+)/?)*" if others else ""
        return f"{one_of([f'{text} {more}', f'{_SPACE} {self._calls.write()}'])}?"

    def _trigger(self, syntax: CallSyntax) -> tuple[str, str]:
        """What opens a call, as a regular expression and as the family writes it.

        An ordinary word is not enough: what follows it belongs to the trigger too.
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

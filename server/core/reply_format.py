r"""The syntax in which a family writes replies: reasoning, content and tool calls in the raw text.

A format is data. Its patterns show the syntax as the chat template writes it, with placeholders:
``<tool_call>\n{"name": "{name}", "arguments": {arguments}}\n</tool_call>``. `server.reply` reads
and writes them and makes grammars of them; `server.prompt` derives them from templates.
"""

from __future__ import annotations

import msgspec


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a sidecar's ``[reply]`` table; an unknown key is an error."""


class Reasoning(_Table, frozen=True, kw_only=True):
    """The texts around reasoning; ``calls``: whether the model may call tools inside it."""

    start: str
    end: str
    calls: bool = False


class Calls(_Table, frozen=True, kw_only=True):
    """How tool calls are written.

    ``call`` shows one call, with the placeholders ``{name}``, ``{arguments}``, ``{id}`` and
    ``{index}``. ``begin``, ``separator`` and ``end`` stand around and between calls; without
    ``several`` a reply has one call at most. ``dialect`` names the language of the arguments
    (`server.reply.dialects`). The tagged dialect writes each argument as ``argument`` shows, with
    ``{key}``, ``{value}`` and, where the family marks strings, ``{string}`` (true or false).
    ``id`` is the form of the ids for calls that the model writes without one: ``{random:9}`` stands
    for nine letters and digits, ``{name}`` and ``{index}`` mean the same as in the call.
    """

    call: str
    begin: str = ""
    separator: str = ""
    end: str = ""
    several: bool = True
    dialect: str = "json"
    argument: str = ""
    id: str = "call_{random:24}"

    def __post_init__(self) -> None:
        """Check the placeholders of ``call``. Raises ValueError."""
        if "{name}" not in self.call or "{arguments}" not in self.call:
            raise ValueError("`call` needs {name} and {arguments}")


class Channels(_Table, frozen=True, kw_only=True):
    """A reply that consists of messages, each with a header that tells its kind.

    A header runs from one of ``start`` to ``message``; the body follows, up to one of ``end`` or
    the next header. The header decides what the body is: content, if it equals ``content``; the
    arguments of a tool call, if it contains ``call``; reasoning, if it contains ``reasoning``; else
    content.

    A grammar also needs the headers in full: ``answer`` for the message that answers, ``asides``
    for messages that may come before it, ``calling`` for a message that holds calls.
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

    ``framing`` lists texts around content that are not part of it. ``stops`` lists texts that end
    an answer, besides the end-of-generation tokens.
    """

    name: str
    reasoning: Reasoning | None = None
    calls: Calls | None = None
    channels: Channels | None = None
    framing: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()

    @property
    def reasons(self) -> bool:
        """Whether replies may hold reasoning."""
        channels = self.channels
        return self.reasoning is not None or bool(channels and channels.reasoning)

    @property
    def reasoning_edges(self) -> tuple[str, str]:
        """The texts around reasoning, without white space; empty strings if there are none."""
        if self.reasoning is None:
            return "", ""
        return self.reasoning.start.strip(), self.reasoning.end.strip()

    @property
    def ends_of_content(self) -> tuple[str, ...]:
        """The texts that may end content, or stand around it."""
        channels = self.channels
        headers = (*channels.start, *channels.end) if channels else ()
        return tuple(filter(None, (*self.reasoning_edges, *self.framing, *headers)))

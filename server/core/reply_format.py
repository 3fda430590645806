r"""How a family writes a reply: where reasoning, content and tool calls are in the raw text.

A format is data. Its patterns show the syntax as the chat template writes it, with placeholders for
what varies: ``<tool_call>\n{"name": "{name}", "arguments": {arguments}}\n</tool_call>``. The same
pattern is read (`parser`), written (`writer`) and derived from a template (`derive`).
"""

from __future__ import annotations

import msgspec


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
    dialect: str = "json"
    argument: str = ""
    id: str = "call_{random:24}"

    def __post_init__(self) -> None:
        """Check what a reader needs. Raises ValueError."""
        if "{name}" not in self.call or "{arguments}" not in self.call:
            raise ValueError("`call` needs {name} and {arguments}")


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
    def reasoning_edges(self) -> tuple[str, str]:
        """The texts around reasoning, without white space; empty where there is none."""
        if self.reasoning is None:
            return "", ""
        return self.reasoning.start.strip(), self.reasoning.end.strip()

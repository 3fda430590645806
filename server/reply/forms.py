"""The forms in which calls are read: the family's own, and others that models fall back to.

Models leave out the marker that opens a call or a section of calls, drop the fence around JSON, or
write calls as another family does. Such a text counts as a call where it names a tool of the
request; the family's own form counts for every name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache

import msgspec

from server.core.reply_format import Calls
from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.syntax import FENCE, CallSyntax, compile_calls

_JSON = '{"name": "{name}", "arguments": {arguments}}'
_LINE_STARTS = ("{", "[", FENCE)

# Markers that no built-in format has, but that models are known to write.
_WELL_KNOWN = (
    Calls(call=f"<|python_tag|>{_JSON}"),
    Calls(call=f"<function_call>{_JSON}</function_call>"),
    Calls(call=f"<tools>{_JSON}</tools>"),
    Calls(call='<function name="{name}">{arguments}</function>'),
    Calls(call="[TOOL_CALLS]{name}{arguments}"),
    Calls(begin="<|tool_call|>[", call=_JSON, separator=", ", end="]<|/tool_call|>"),
    Calls(
        begin="<tool_calls>\n",
        call="<tool_call>{name}\n```json\n{arguments}\n```\n</tool_call>\n",
        end="</tool_calls>",
    ),
    Calls(call="<tool_call>\n{name}({arguments})\n</tool_call>", dialect="pythonic"),
    *(
        Calls(begin=begin, call="{name}({arguments})", separator=joint, end=end, dialect="pythonic")
        for begin, joint, end in (
            ("<function_calls>", "\n", "</function_calls>"),
            ("<|python_start|>[", ", ", "]<|python_end|>"),
        )
    ),
    Calls(
        begin="<function_calls>\n",
        call='<invoke name="{name}">\n{arguments}</invoke>\n',
        argument='<parameter name="{key}">{value}</parameter>\n',
        end="</function_calls>",
        dialect="tagged",
    ),
)
_BARE_JSON = Calls(call=_JSON)
_BARE_PYTHON = Calls(
    begin="[", call="{name}({arguments})", separator=", ", end="]", dialect="pythonic"
)

TWO_MARKERS = re.compile(r"<[^<>\s]+>\s+(<[^<>{\s]+)(?=\{name\})")
"""The beginning of a call that opens with two markers, of which the second holds the name."""


class Form(msgspec.Struct, frozen=True):
    """A form of calls; ``own``: the family writes it so, marker and all."""

    calls: Calls
    own: bool = False

    @property
    def syntax(self) -> CallSyntax:
        """The patterns, split for reading."""
        return compile_calls(self.calls)


class Forms(msgspec.Struct, frozen=True):
    """The forms to try at each text that may open a call, best first.

    ``marked`` begin with their text anywhere; ``bare`` only at the start of the content or of a
    line in it.
    """

    marked: dict[str, tuple[Form, ...]]
    bare: dict[str, tuple[Form, ...]]


@lru_cache(maxsize=64)
def call_forms(calls: Calls, *, tolerant: bool) -> Forms:
    """The forms of calls in a reply of a family whose own calls are ``calls``.

    Args:
        calls: The family's call syntax.
        tolerant: Whether other forms than the family's own are read.
    """
    own = Form(calls, own=True)
    own_trigger = own.syntax.trigger
    marked: dict[str, tuple[Form, ...]] = {}
    bare: dict[str, tuple[Form, ...]] = {}
    (bare if own.syntax.bare else marked)[own_trigger] = (own,)
    if not tolerant:
        return Forms(marked, bare)
    for other in dict.fromkeys((*_shortened(calls), *_other_families())):
        trigger = compile_calls(other).trigger
        if other != calls and len(trigger) > 1 and trigger[0] in "<[":
            marked[trigger] = (*marked.get(trigger, ()), Form(other))
    for trigger in _LINE_STARTS:
        found = [Form(_BARE_JSON), Form(_BARE_PYTHON)]
        bare[trigger] = (*bare.get(trigger, ()), *found)
    return Forms(marked, bare)


@cache
def _other_families() -> tuple[Calls, ...]:
    """The call syntaxes of all families, and what is left of them without their markers."""
    formats = map(builtin_format, builtin_tables())
    found = [each.calls for each in formats if each.calls and not each.channels]
    every = [syntax for calls in (*found, *_WELL_KNOWN) for syntax in (calls, *_shortened(calls))]
    # Where several share a marker, those that allow more white space around values come first.
    return tuple(sorted(dict.fromkeys(every), key=lambda calls: -len(calls.argument)))


@cache
def closing_marks() -> tuple[str, ...]:
    """The texts that close calls and sections in any family."""
    syntaxes = map(compile_calls, _other_families())
    found = {text for syntax in syntaxes for text in (*syntax.close, *syntax.end)}
    return tuple(sorted(text for text in found if text[0] in "<[" and len(text) > 1))


def _shortened(calls: Calls) -> Iterator[Calls]:
    """``calls`` without the section around them, and without the first of two opening markers.

    What would close the part left out may follow all the same.
    """
    if calls.begin:
        call = f"{calls.call}\n{calls.end}"
        calls = msgspec.structs.replace(calls, call=call, begin="", separator="", end="")
        yield calls
    if found := TWO_MARKERS.match(calls.call):
        yield msgspec.structs.replace(calls, call=calls.call[found.start(1) :])

"""Deriving a call syntax from a template, by comparing renders that differ in one thing.

This finds calls in JSON, a name followed by JSON, and tagged arguments. A format found this way
counts only if it passes the round trip.
"""

from __future__ import annotations

import json
import re

import msgspec

from server.core.reply_format import Calls, Reasoning, ReplyFormat
from server.core.request import Message, ToolCall
from server.prompt.format_discovery.round_trip import RoundTrip, common_prefix
from server.prompt.messages.probing_conversations import (
    ASSISTANT,
    CALLS,
    KEY,
    KEY2,
    REASONING,
    VALUE,
    VALUE2,
)

_BOTH_ARGUMENTS = json.dumps({KEY: VALUE, KEY2: VALUE2})
_MARKER = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
_LAST_MARKER = re.compile(r"(<[^<>\s]+>|\[[^\[\]\s]+\])\s*\Z")


class _Frame(msgspec.Struct, frozen=True):
    """A reply with calls: the texts before, between and after them, and the pattern of a call."""

    before: str
    core: str
    after: str
    between: str = ""


class _Arguments(msgspec.Struct, frozen=True):
    """A way to write arguments: JSON, keyword arguments, or an argument pattern."""

    separators: tuple[str, str] = (", ", ": ")
    indent: int | None = None
    keywords: bool = False
    pattern: str = ""

    def write(self, text: str) -> str:
        """Write ``text``, a JSON object of strings, this way."""
        arguments = json.loads(text)
        if self.keywords:
            return ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items())
        if not self.pattern:
            return json.dumps(arguments, separators=self.separators, indent=self.indent)
        return "".join(
            self.pattern.replace("{key}", key).replace("{value}", value)
            for key, value in arguments.items()
        )


def derive_answers(round_trip: RoundTrip) -> ReplyFormat:
    """The texts around an assistant message's reasoning and content, as far as there are any."""
    plain = ReplyFormat(name="derived")
    said = Message(role="assistant", content=ASSISTANT)
    before, found, after = (round_trip.reply(said, plain) or "").partition(ASSISTANT)
    framing: tuple[str, ...] = ()
    if found and _MARKER.fullmatch(before.strip()):
        framing = (before.strip(), _without_turn_end(after, round_trip.turn_end).strip())
    reasoning = derive_reasoning(round_trip, framing)
    return ReplyFormat(
        name="derived", reasoning=reasoning, framing=tuple(text for text in framing if text)
    )


def derive_reasoning(round_trip: RoundTrip, framing: tuple[str, ...] = ()) -> Reasoning | None:
    """The texts around an assistant message's reasoning.

    Args:
        round_trip: Renders messages with the template.
        framing: The texts around content.

    Returns:
        None if the template neither shows reasoning nor begins it in the prompt.
    """
    plain = ReplyFormat(name="derived")
    said = Message(role="assistant", content=ASSISTANT, reasoning_content=REASONING)
    start, reasoning, rest = (round_trip.reply(said, plain) or "").partition(REASONING)
    end, content, _ = rest.partition(ASSISTANT)
    opened = "" if round_trip.opens_answers else _last_marker(round_trip.prompt)
    if not reasoning:
        closed = re.sub(r"^(<\|?|\[)", r"\1/", opened.strip())
        shown = opened and closed in round_trip.source
        return Reasoning(start=opened, end=closed) if shown else None
    start = start if start.strip() else opened
    end = end.removesuffix(framing[0]) if framing else end
    if not (content and start.strip() and end.strip()):
        return None
    return Reasoning(start=start, end=end)


def _last_marker(text: str) -> str:
    found = _LAST_MARKER.search(text)
    return found.group() if found else ""


def derive_calls(round_trip: RoundTrip, reasoning: Reasoning | None) -> Calls | None:
    """The template's own call syntax; None if it has none of the forms that can be found."""
    known = ReplyFormat(name="derived", reasoning=reasoning)

    def reply(*calls: ToolCall, content: str = "") -> str:
        message = Message(role="assistant", content=content, tool_calls=list(calls))
        text = round_trip.reply(message, known) or ""
        # Without reasoning many templates write an empty block.
        _, end, rest = text.partition(known.reasoning_edges[1] or ASSISTANT)
        return rest.lstrip() if end and reasoning else text

    one, two = reply(CALLS[0]), reply(*CALLS)
    both = reply(msgspec.structs.replace(CALLS[0], arguments=_BOTH_ARGUMENTS))
    turn_end = reply(content=ASSISTANT).partition(ASSISTANT)[2]
    for arguments in _ways(both):
        single = _single(one, arguments)
        if single is None:
            continue
        pair = _pair(two, arguments)
        calls = _assemble(pair, turn_end) if pair else _alone(single, turn_end)
        dialect: dict[str, str] = {}
        if arguments.pattern:
            dialect = {"dialect": "tagged", "argument": arguments.pattern}
        elif arguments.keywords:
            dialect = {"dialect": "pythonic"}
        return msgspec.convert({**msgspec.to_builtins(calls), **dialect}, Calls)
    return None


def _ways(both: str) -> list[_Arguments]:
    ways = [_Arguments(), _Arguments(separators=(",", ":"))]
    ways += [_Arguments(indent=indent, separators=(",", ": ")) for indent in (2, 4)]
    ways.append(_Arguments(keywords=True))
    pattern = _argument_pattern(both)
    return [*ways, _Arguments(pattern=pattern)] if pattern else ways


def _argument_pattern(both: str) -> str | None:
    """The pattern of one argument, from a call with two."""
    found = re.search(f"{KEY}(.*){VALUE}(.*){KEY2}(.*){VALUE2}(.*)", both, re.DOTALL)
    if found is None:
        return None
    before = both[: found.start()]
    after_key, joint, same, rest = found.groups()
    if after_key != same or not after_key.strip():
        return None
    for cut in range(common_prefix(joint, rest), 0, -1):
        opening, closing = joint[cut:], joint[:cut]
        if opening[:1] in {"<", "["} and before.endswith(opening) and closing.strip():
            return f"{opening}{{key}}{after_key}{{value}}{closing}"
    return None


def _single(text: str, arguments: _Arguments) -> _Frame | None:
    return _split(text, CALLS[0], arguments)


def _pair(text: str, arguments: _Arguments) -> _Frame | None:
    """The parts of a reply with two calls; None if the second is written differently."""
    first = _split(text, CALLS[0], arguments)
    second = _split(first.after, CALLS[1], arguments) if first else None
    if first is None or second is None or first.core != second.core:
        return None
    return _Frame(first.before, first.core, second.after, second.before)


def _split(text: str, call: ToolCall, arguments: _Arguments) -> _Frame | None:
    holes = {
        "{name}": call.name,
        "{arguments}": arguments.write(call.arguments),
        "{id}": call.id,
    }
    spans = {hole: (text.find(value), len(value)) for hole, value in holes.items() if value in text}
    if not {"{name}", "{arguments}"} <= spans.keys():
        return None
    start = min(place for place, _ in spans.values())
    end = max(place + length for place, length in spans.values())
    core = text[start:end]
    for hole in sorted(spans, key=lambda hole: -spans[hole][0]):
        place, length = spans[hole]
        core = core[: place - start] + hole + core[place - start + length :]
    return _Frame(text[:start], core, text[end:])


def _alone(parts: _Frame, turn_end: str) -> Calls:
    after = _without_turn_end(parts.after, turn_end)
    return Calls(call=(parts.before + parts.core + after).strip(), several=False)


def _assemble(parts: _Frame, turn_end: str) -> Calls:
    """The syntax for several calls, from the texts that are alike around each of them."""
    shared = common_prefix(parts.before[::-1], parts.between[::-1])
    opening = _from_marker(parts.between[len(parts.between) - shared :])
    joint = parts.between[: len(parts.between) - len(opening)]
    closing = _to_marker(joint[: common_prefix(joint, parts.after)])
    begin = parts.before[: len(parts.before) - len(opening)].lstrip()
    end = _without_turn_end(parts.after[len(closing) :], turn_end) if begin else ""
    separator = joint[len(closing) :]
    return Calls(call=opening + parts.core + closing, begin=begin, separator=separator, end=end)


def _without_turn_end(text: str, turn_end: str) -> str:
    shared = common_prefix(text[::-1], turn_end[::-1])
    return _to_marker(text[: len(text) - shared]).rstrip()


def _from_marker(text: str) -> str:
    """``text`` without the rest of a marker at its start."""
    rest = re.match(r"[^<\[{]*>", text)
    return text[rest.end() :] if rest else text


def _to_marker(text: str) -> str:
    """``text`` without the beginning of a marker at its end."""
    return re.sub(r"<[^>]*\Z", "", text)

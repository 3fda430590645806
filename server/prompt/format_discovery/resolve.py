"""Finding the reply format of a model's template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from server.core.reply_format import Reasoning, ReplyFormat
from server.prompt.format_discovery.candidates import candidates
from server.prompt.format_discovery.difference import derive_answers, derive_calls
from server.prompt.format_discovery.round_trip import RoundTrip
from server.prompt.messages.capabilities import Capabilities
from server.prompt.template.chat_template import ChatTemplate
from server.reply.builtin_formats import builtin_format, builtin_tables, format_from_table

GENERIC = "hermes"
"""The format of calls that is described to a model whose template knows no tools."""


def resolve_reply_format(
    template: ChatTemplate, capabilities: Capabilities, family_reply: Mapping[str, Any] | None
) -> ReplyFormat | None:
    """The format of replies to this template's prompts.

    In this order: the family's format; the built-in formats by hash, then by texts of the template;
    a format derived from its renders, with generic calls if the template knows no tools. Calls are
    part of the result only if they pass the round trip through the template.

    Args:
        template: The template.
        capabilities: What it can express.
        family_reply: The ``[reply]`` table of the family in use. One without calls only adds to the
            format that is found.

    Returns:
        The format; None if replies are content only.

    Raises:
        ValueError: ``family_reply`` is not valid.
    """
    round_trip = RoundTrip(template, capabilities)
    configured = format_from_table(family_reply, "family") if family_reply else None
    if configured and configured.calls:
        holds = round_trip.holds(configured)
        return configured if holds else msgspec.structs.replace(configured, calls=None)
    found = _found(template, capabilities, round_trip)
    if configured is None:
        return found
    if found is None:
        return configured
    return msgspec.structs.replace(
        found, reasoning=configured.reasoning or found.reasoning, stops=configured.stops
    )


def _found(
    template: ChatTemplate, capabilities: Capabilities, round_trip: RoundTrip
) -> ReplyFormat | None:
    for reply_format in candidates(template):
        if round_trip.holds(reply_format):
            return reply_format
    derived = _answers(template, round_trip)
    if capabilities.tool_calls:
        calls = derive_calls(round_trip, derived.reasoning)
    elif capabilities.tools:
        # It describes tools, but it does not show how they are called.
        calls = None
    else:
        calls = builtin_format(GENERIC).calls
    calling = msgspec.structs.replace(derived, calls=calls)
    if calls and round_trip.holds_derived(calling):
        return calling
    return derived if derived.reasoning or derived.framing else None


def _answers(template: ChatTemplate, round_trip: RoundTrip) -> ReplyFormat:
    """A format of answers without calls that passes the round trip, the richest there is."""
    plain = ReplyFormat(name="derived")
    known = msgspec.structs.replace(plain, reasoning=_known_reasoning(template))
    derived = derive_answers(round_trip)
    framed = msgspec.structs.replace(derived, reasoning=None)
    tried = [known] if known.reasoning else []
    tried += [derived, framed]
    return next((each for each in tried if round_trip.holds_answers(each)), plain)


def _known_reasoning(template: ChatTemplate) -> Reasoning | None:
    """The reasoning of the first built-in format whose two markers the template contains.

    Many templates drop past reasoning, so no render would show the markers.
    """
    for name in builtin_tables():
        reply_format = builtin_format(name)
        if reply_format.reasoning and all(
            edge in template.source for edge in reply_format.reasoning_edges
        ):
            return msgspec.structs.replace(reply_format.reasoning, calls=False)
    return None

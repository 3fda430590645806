"""Finding the reply format of a model's template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from server.core.reply_format import Reasoning, ReplyFormat
from server.prompt.format_discovery.candidates import candidates
from server.prompt.format_discovery.difference import derive_calls, derive_reasoning
from server.prompt.format_discovery.round_trip import RoundTrip
from server.prompt.messages.capabilities import Capabilities
from server.prompt.template.chat_template import ChatTemplate
from server.reply.builtin_formats import builtin_format, builtin_tables, format_from_table

GENERIC = "hermes"
"""How a model is told to call where its template knows no tools."""


def resolve_reply_format(
    template: ChatTemplate, capabilities: Capabilities, family_reply: Mapping[str, Any] | None
) -> ReplyFormat | None:
    """How replies to this template's prompts are to be read.

    In this order: what the family says, the built-in formats by hash and by texts of the template,
    a format derived from its renders, and where the template knows no tools the generic one. Calls
    are part of the result only if they pass the round trip through the template.

    Args:
        template: The template.
        capabilities: What it can express.
        family_reply: The ``[reply]`` table of the family in use; one without calls only adds to
            what is found.

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
    reasoning = _known_reasoning(template) or derive_reasoning(round_trip)
    if capabilities.tool_calls:
        calls = derive_calls(round_trip, reasoning)
    elif capabilities.tools:
        # It describes tools, but not how they are called.
        calls = None
    else:
        calls = builtin_format(GENERIC).calls
    derived = ReplyFormat(name="derived", reasoning=reasoning, calls=calls)
    if calls and round_trip.holds(derived):
        return derived
    return msgspec.structs.replace(derived, calls=None) if reasoning else None


def _known_reasoning(template: ChatTemplate) -> Reasoning | None:
    """The first reasoning markers of the built-in formats that the template holds, both of them.

    Many templates drop past reasoning, so that no render shows where it would be.
    """
    for name in builtin_tables():
        reply_format = builtin_format(name)
        if reply_format.reasoning and all(
            edge in template.source for edge in reply_format.reasoning_edges
        ):
            return msgspec.structs.replace(reply_format.reasoning, calls=False)
    return None

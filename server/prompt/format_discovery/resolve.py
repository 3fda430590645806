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
    reasoning = _known_reasoning(template) or derive_reasoning(round_trip)
    if capabilities.tool_calls:
        calls = derive_calls(round_trip, reasoning)
    elif capabilities.tools:
        # It describes tools, but it does not show how they are called.
        calls = None
    else:
        calls = builtin_format(GENERIC).calls
    derived = ReplyFormat(name="derived", reasoning=reasoning, calls=calls)
    if calls and round_trip.holds(derived):
        return derived
    return msgspec.structs.replace(derived, calls=None) if reasoning else None


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

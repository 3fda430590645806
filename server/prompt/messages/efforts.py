"""Levels of effort in reasoning: the nearest one that a template knows.

Clients send the levels of OpenAI and Anthropic to any model. Templates know some of them, print
what they get, or have only a switch for thoughts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from server.core.errors import ConversationError
from server.prompt.template.chat_template import ChatTemplate

EFFORT = "reasoning_effort"
LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""All levels that the API families have, from no effort to the greatest."""

_PRINTED = ("low", "medium", "high")
"""The levels of models whose template prints the level: those of gpt-oss's system message
(https://cookbook.openai.com/articles/openai-harmony)."""

_DEFAULT = "medium"
"""Where the effort that a template asks for by itself is among the levels; a choice."""

_UNKNOWN = "needleeffort"
_SWITCHES = ("enable_thinking", "thinking")


class Efforts(msgspec.Struct, frozen=True, kw_only=True):
    """What a template knows of effort.

    Attributes:
        levels: The levels that it knows.
        has_default: Whether it takes other levels for no statement.
        switch: Whether it has a switch for thoughts.
    """

    levels: tuple[str, ...] = ()
    has_default: bool = False
    switch: bool = False

    @classmethod
    def of(cls, template: ChatTemplate) -> Efforts:
        """Find out what ``template`` knows. It renders a few tiny conversations."""
        switches = template.variables.intersection(_SWITCHES)
        if EFFORT not in template.variables:
            return cls(switch=bool(switches))

        def rendered(level: str) -> str | None:
            variables = {**dict.fromkeys(switches, True), EFFORT: level}
            try:
                return template.render([{"role": "user", "content": "x"}], variables=variables)
            except ConversationError:
                return None

        other = rendered(_UNKNOWN)
        shown = {level: rendered(level) for level in LEVELS}
        if other is None:
            known = [level for level in LEVELS if shown[level] is not None]
        elif _UNKNOWN in other.lower():
            known = [
                level
                for level in LEVELS
                if level in _PRINTED
                or (shown[level] or "").lower() != other.lower().replace(_UNKNOWN, level)
            ]
        else:
            known = [level for level in LEVELS if shown[level] not in {None, other}]
        prints = other is None or _UNKNOWN in other.lower()
        return cls(levels=tuple(known), has_default=not prints, switch=bool(switches))

    def applied(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """``variables`` with a level that the template knows, and its switch set accordingly.

        Effort ``none`` switches thoughts off, any other switches them on, unless the request
        switches them itself. A level that is none of `LEVELS` is the template's own.
        """
        level = variables.get(EFFORT)
        if level not in LEVELS:
            return dict(variables)
        found = {name: value for name, value in variables.items() if name != EFFORT}
        if self.switch and not found.keys() & set(_SWITCHES):
            found["enable_thinking"] = level != "none"
        if level == "none" and self.switch and "none" not in self.levels:
            return found
        nearest = self._nearest(level)
        return found if nearest is None else {**found, EFFORT: nearest}

    def _nearest(self, level: str) -> str | None:
        """The nearest known level, the lower of two; None for the template's own default."""
        if level in self.levels:
            return level
        choices = {name: name for name in self.levels if name != "none"}
        if self.has_default:
            choices.setdefault(_DEFAULT, "")
        place = LEVELS.index(level)
        nearest = min(choices, key=lambda name: abs(LEVELS.index(name) - place), default=None)
        return choices[nearest] or None if nearest else None

"""System text: leading text where a template takes it, later text where it stands."""

from __future__ import annotations

from itertools import takewhile

from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.parts import joined, text_of
from server.prompt.messages.tool_turns import Turn, merged
from server.prompt.template.content import text_part

_ROLES = {"system", "developer"}


def place_systems(turns: list[Turn], capabilities: Capabilities) -> list[Turn]:
    """Put leading system text where the template takes it: once, or in the first user's turn.

    Text after other turns stays there, as a user's turn in words where the template has no place
    for it: what comes before it is then the same prefix as without it.
    """
    if _are_native(turns, capabilities):
        return turns
    turns = _late_in_words(turns)
    if _are_native(turns, capabilities):
        return turns
    places = _places(turns)
    system = turns[places[0]]
    for place in places[1:]:
        system = merged(system, turns[place])
    others = [turn for place, turn in enumerate(turns) if place not in places]
    if capabilities.system_role and _lasts(turns, capabilities):
        return [system, *others]
    return _in_first_user(system, others)


def _places(turns: list[Turn]) -> list[int]:
    return [place for place, turn in enumerate(turns) if turn.role in _ROLES]


def _are_native(turns: list[Turn], capabilities: Capabilities) -> bool:
    """Whether the template takes all system text where it is."""
    places = _places(turns)
    late = places != list(range(len(places)))
    fits = (capabilities.late_system or not late) and (
        capabilities.several_systems or len(places) < 2
    )
    return not places or (fits and capabilities.system_role and _lasts(turns, capabilities))


def _lasts(turns: list[Turn], capabilities: Capabilities) -> bool:
    return capabilities.lasting_system or turns[-1].role == "user"


def _late_in_words(turns: list[Turn]) -> list[Turn]:
    leading = list(takewhile(lambda turn: turn.role in _ROLES, turns))
    others = turns[len(leading) :]
    return leading + [_in_words(turn) if turn.role in _ROLES else turn for turn in others]


def _in_words(turn: Turn) -> Turn:
    text = f"<system>\n{text_of(turn.message['content'])}\n</system>"
    return Turn(turn.source, {"role": "user", "content": [text_part(text)]})


def _in_first_user(system: Turn, turns: list[Turn]) -> list[Turn]:
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return [Turn(system.source, {**system.message, "role": "user"}), *turns]
    user = turns[first]
    content = joined(system.message["content"], user.message["content"])
    turns[first] = Turn(user.source, {**user.message, "content": content})
    return turns

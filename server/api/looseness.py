"""What of a request's schemas its answers were not held to, and what they then violate: said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

import msgspec

from server.core.errors import Locator, path_text
from server.core.reply import AnswerFinished, AnswerStarted, ReplyEvent, ReplyFold
from server.core.request import GenerationRequest
from server.reply.conformity import held_nearly, violations

_log = logging.getLogger(__name__)

LOOSENED = "x-dragoman-loosened"
VIOLATED = "x-dragoman-violated"

# Choices: clients and proxies limit headers to some kilobytes.
_MOST_PLACES = 40
_MOST_CHARACTERS = 4_000
# All of printable ASCII but what separates places and begins an escape.
_SAFE = "!\"#$&'()*+/:;<=>?@[\\]^`{|}"


class Looseness:
    """Collects what a request's answers are not held to, what they violate, and what is ignored.

    Each place and name counts once.
    """

    def __init__(self) -> None:
        self.loosened: dict[Locator, None] = {}
        self.violations: dict[Locator, None] = {}
        self.ignored: dict[str, None] = {}

    def add(self, event: ReplyEvent) -> None:
        """Take the next event."""
        if isinstance(event, AnswerStarted):
            self.loosened |= dict.fromkeys(event.loosened)
            self.ignored |= dict.fromkeys(event.ignored)
        elif isinstance(event, AnswerFinished):
            self.violations |= dict.fromkeys(event.violations)


class Conformity:
    """Checks the answers to a request against those of its schemas that no grammar holds exactly.

    Args:
        model: The model's id, for the log.
        request: The request.
        loosened: The places of what its answers are not held to.
    """

    def __init__(self, model: str, request: GenerationRequest, loosened: Sequence[Locator]) -> None:
        self._model = model
        self._request = request
        self._checked = [*loosened, *held_nearly(request)]
        self._answers: dict[int, ReplyFold] = {}
        if loosened:
            _log.info("%s: loosened %s", model, listed(loosened))

    async def checked(self, event: ReplyEvent) -> ReplyEvent:
        """``event``, the next of the reply; the end of an answer says what the answer violates."""
        if not self._checked:
            return event
        self._answers.setdefault(event.answer, ReplyFold()).add(event)
        if not isinstance(event, AnswerFinished):
            return event
        (answer,) = self._answers.pop(event.answer).reply().answers
        found = await asyncio.to_thread(violations, self._request, self._checked, answer)
        if not found:
            return event
        _log.warning("%s: answer %d violates %s", self._model, event.answer, listed(found))
        return msgspec.structs.replace(event, violations=found)


def headers(
    loosened: Iterable[Locator],
    violated: Iterable[Locator],
    locate: Callable[[Locator], Locator],
) -> dict[str, str]:
    """The headers of an answer that say so; ``locate`` turns a place into a path into the body."""
    made = {
        name: listed([locate(place) for place in dict.fromkeys(places)])
        for name, places in ((LOOSENED, loosened), (VIOLATED, violated))
    }
    return {name: value for name, value in made.items() if value}


def listed(places: Sequence[Locator]) -> str:
    """Places as one line of ASCII, not too long; names in them are percent-encoded where needed."""
    shown: list[str] = []
    for place in places[:_MOST_PLACES]:
        shown.append(quote(path_text(place), safe=_SAFE))
        if sum(map(len, shown)) > _MOST_CHARACTERS:
            shown.pop()
            break
    more = len(places) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])])

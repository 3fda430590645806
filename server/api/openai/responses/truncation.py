"""``truncation: auto``: the oldest items of a conversation that is too long are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from server.api.openai.responses.conversation import Conversation
from server.api.surplus import surplus
from server.core.errors import ContextLengthExceeded, Locator, path_text
from server.core.request import GenerationRequest, with_messages


class Shortening:
    """Shortens a request, each time it is called, until the context holds it (`surplus`).

    Args:
        request: The request.
        conversation: Its conversation, whose places are kept up to date.
        ignored: Gets the paths of what is left out.
        summed_up: Whether the last message asks for a summary.
    """

    def __init__(
        self,
        request: GenerationRequest,
        conversation: Conversation,
        ignored: list[str],
        *,
        summed_up: bool,
    ) -> None:
        self.request = request
        self._conversation = conversation
        self._ignored = ignored
        self._summed_up = summed_up

    def __call__(self, error: ContextLengthExceeded) -> Sequence[GenerationRequest] | None:
        """A shorter request; None where nothing more can be left out."""
        dropped = surplus(
            self._conversation.messages,
            error,
            max_tokens=self.request.max_tokens,
            summed_up=self._summed_up,
        )
        if not dropped:
            return None
        self._drop(dropped)
        self.request = with_messages(self.request, self._conversation.messages)
        return [self.request]

    def limit(self, tokens: int) -> GenerationRequest:
        """The request, whose answer has at most ``tokens`` now."""
        most = min(self.request.max_tokens or tokens, tokens)
        self.request = msgspec.structs.replace(self.request, max_tokens=most)
        return self.request

    def sum_up(self, summary: str) -> None:
        """Let ``summary`` stand for all of the conversation that can be summed up."""
        self._conversation.sum_up(summary, ("input",))
        self.request = with_messages(self.request, self._conversation.messages)

    def _drop(self, dropped: set[int]) -> None:
        found = self._conversation
        self._ignored += _named([found.places[index] for index in sorted(dropped)])
        found.keep([index for index in range(len(found.messages)) if index not in dropped])


def _named(places: Sequence[Locator]) -> Iterator[str]:
    """Names of the places; stored items have one name together, with their number."""
    for name, group in groupby(map(path_text, places)):
        count = len(list(group))
        yield name if name.startswith("input") else f"{name} ({count} of the oldest messages)"

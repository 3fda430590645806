"""``truncation: auto``: the oldest items of a conversation that is too long are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from math import ceil

import msgspec

from server.api.openai.responses.conversation import Conversation
from server.api.summary import SUMMARY_TASK
from server.core.errors import ContextLengthExceeded, Locator, path_text
from server.core.request import ChatPrompt, GenerationRequest, Message, TextPart

_MOST_ANSWER_SHARE = 4
"""Room for the answer: as many tokens as it may have, but at most a quarter of the context."""


class Shortening:
    """Shortens a request, each time it is called, until the context holds it.

    System text at the beginning stays, and so does what the user said last. Whole turns go first,
    the oldest before the others; then the answers in the last turn, each with its calls and their
    results. A conversation that is summed up may lose all of its last turn.

    Args:
        request: The request.
        conversation: Its conversation, whose places are kept up to date.
        ignored: Gets the paths of what is left out.
    """

    def __init__(
        self, request: GenerationRequest, conversation: Conversation, ignored: list[str]
    ) -> None:
        self._request = request
        self._conversation = conversation
        self._ignored = ignored

    def __call__(self, error: ContextLengthExceeded) -> Sequence[GenerationRequest] | None:
        """A shorter request; None where nothing more can be left out."""
        messages = self._conversation.messages
        dropped: set[int] = set()
        missing = self._missing_share(error) * sum(map(_length, messages))
        for unit in _units(messages):
            if missing <= 0:
                break
            dropped.update(unit)
            missing -= sum(_length(messages[index]) for index in unit)
        if not dropped:
            return None
        self._drop(dropped)
        prompt = self._request.prompt
        assert isinstance(prompt, ChatPrompt)
        prompt = msgspec.structs.replace(prompt, messages=list(self._conversation.messages))
        self._request = msgspec.structs.replace(self._request, prompt=prompt)
        return [self._request]

    def _missing_share(self, error: ContextLengthExceeded) -> float:
        """The share of the prompt that has to go."""
        tokens, most = error.numbers.get("tokens", 0), error.numbers.get("most", 0)
        room = min(self._request.max_tokens or most, ceil(most / _MOST_ANSWER_SHARE))
        return max(tokens - most + room, 1) / max(tokens, 1)

    def _drop(self, dropped: set[int]) -> None:
        found = self._conversation
        self._ignored += _named([found.places[index] for index in sorted(dropped)])
        found.keep([index for index in range(len(found.messages)) if index not in dropped])


def _units(messages: Sequence[Message]) -> Iterator[range]:
    """What can be left out, the oldest first: turns, then answers of the last turn.

    A task to sum up the conversation is no turn: the turn before it is the last. Where nothing else
    is left, that turn's last answer goes too, and then what the user said.
    """
    summed_up = messages[-1].content == SUMMARY_TASK
    stop = len(messages) - summed_up
    first = next((i for i in range(stop) if messages[i].role not in _SYSTEM), stop)
    turns = [i for i in range(first, stop) if i == first or messages[i].role == "user"]
    for begin, end in pairwise(turns):
        yield range(begin, end)
    last = turns[-1] if turns else stop
    answers = [i for i in range(last + 1, stop) if messages[i].role == "assistant"]
    for begin, end in pairwise([*answers, stop] if summed_up else answers):
        yield range(begin, end)
    if summed_up and turns:
        yield range(last, last + 1)


_SYSTEM = {"system", "developer"}

# A choice: many projectors make about 256 tokens of an image, with some four characters each.
_IMAGE_CHARACTERS = 1_000


def _length(message: Message) -> int:
    """The characters of a message, some for its markup and many for each of its images."""
    content = message.content or ""
    parts = [TextPart(content)] if isinstance(content, str) else content
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    images = _IMAGE_CHARACTERS * (len(parts) - len(texts))
    texts += [call.name + call.arguments for call in message.tool_calls]
    return 16 + sum(map(len, texts)) + len(message.reasoning_content or "") + images


def _named(places: Sequence[Locator]) -> Iterator[str]:
    """Names of the places; stored items have one name together, with their number."""
    for name, group in groupby(map(path_text, places)):
        count = len(list(group))
        yield name if name.startswith("input") else f"{name} ({count} of the oldest messages)"

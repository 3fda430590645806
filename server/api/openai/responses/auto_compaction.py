"""``context_management``: a conversation is summed up once it has many tokens, and goes on."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from server.api.family import Model
from server.api.openai.responses.conversation import NEVER_SUMMED_UP
from server.api.openai.responses.encoder import ResponseEncoder
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.api.openai.responses.truncation import Shortening
from server.api.summary import is_to_be_summed_up, lowered, most_summary_tokens, summary_of
from server.core.model_info import ModelInfo
from server.core.request import ChatPrompt, GenerationRequest

_KIND = "compaction"


class AutoCompaction:
    """Puts a summary in place of a conversation of more than ``beyond`` tokens.

    Args:
        beyond: The tokens.
        shortening: Has the request, and keeps it.
        encoder: Gets the summary, with which the response begins.
    """

    def __init__(self, beyond: int, shortening: Shortening, encoder: ResponseEncoder) -> None:
        self._beyond = beyond
        self._shortening = shortening
        self._encoder = encoder

    async def __call__(self, model: Model) -> Sequence[GenerationRequest]:
        """The request that the model is asked; raises what the methods of ``model`` raise."""
        request = self._shortening.request
        assert isinstance(request.prompt, ChatPrompt)
        if await is_to_be_summed_up(model, request.prompt, self._beyond, staying=NEVER_SUMMED_UP):
            summary = (await summary_of(model, request)).answers[0].text.strip()
            if summary:
                self._encoder.begin_with(summary)
                self._shortening.sum_up(summary)
        return [self._shortening.request]


async def within_the_context(shortening: Shortening, model: Model) -> Sequence[GenerationRequest]:
    """The request of ``shortening`` for a summary that leaves room in the context of ``model``."""
    return [shortening.limit(most_summary_tokens(model.context))]


def compaction_threshold(body: ResponsesRequest) -> int | None:
    """The tokens beyond which ``body`` wants its conversation summed up; None: never."""
    for entry in body.context_management or []:
        if entry.type == _KIND:
            stated = entry.compact_threshold
            return sys.maxsize if stated is None else stated
    return None


def lowered_thresholds(body: ResponsesRequest, info: ModelInfo | None) -> dict[str, int]:
    """The thresholds of ``body`` that the context never reaches, and what holds for them."""
    found = {}
    for index, entry in enumerate(body.context_management or []):
        if info is None or entry.type != _KIND or entry.compact_threshold is None:
            continue
        most = lowered(entry.compact_threshold, info.context)
        if most < entry.compact_threshold:
            found[f"context_management[{index}].compact_threshold"] = most
    return found


def ignored_entries(body: ResponsesRequest) -> list[str]:
    """The entries of ``body`` that have no effect: of other kinds, and all but the first."""
    wanted = [entry.type == _KIND for entry in body.context_management or []]
    return [
        f"context_management[{index}] ({entry.type})"
        for index, entry in enumerate(body.context_management or [])
        if index != (wanted.index(True) if any(wanted) else None)
    ]

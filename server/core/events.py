"""Events by which a worker reports on a request, in order."""

from __future__ import annotations

from typing import Literal

import msgspec

from server.core.errors import ErrorInfo, Locator

FinishReason = Literal["stop", "length"]


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token with its raw log-probability (natural log; None for the first prompt token).

    ``piece`` is the token's own bytes, possibly a part of a UTF-8 character. ``top`` holds the most
    probable alternatives as (id, bytes, logprob), best first. The text lacks the first ``unseen``
    bytes of the piece: all of them for a BOS that the tokenizer added.
    """

    id: int
    piece: bytes
    logprob: float | None
    top: list[tuple[int, bytes, float]] = []
    unseen: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of one finished answer; times in seconds.

    ``image_tokens`` are those of the prompt that images are made of, without their markers.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    image_tokens: int = 0
    reasoning_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """The request passed every check and is queued; a stream may begin now.

    ``reply_prefix`` is the part of the generation prompt that already belongs to the reply (like
    an opened reasoning block), to be fed to the reply parser first. ``tools_active`` says whether
    the reply may hold tool calls. ``loosened`` has the places of what the request's schemas say and
    the answer is not held to, as paths from ``tools`` or ``constraint`` to a keyword. ``ignored``
    names what of the request has no effect on this prompt.
    """

    id: int
    prompt_tokens: int
    reply_prefix: str = ""
    tools_active: bool = False
    loosened: list[Locator] = []
    ignored: list[str] = []


class PromptScored(msgspec.Struct, frozen=True, kw_only=True, tag="scored"):
    """Answer to ``echo``: the prompt's text and its tokens, with logprobs when asked for."""

    id: int
    text: str
    tokens: list[TokenLogprob]


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag="delta"):
    """New text of answer ``index``: whole UTF-8 characters only, never part of a stop string.

    ``tokens`` is how many tokens were generated since the last delta of this answer; ``logprobs``
    has one entry for each of them when logprobs were asked for.
    """

    id: int
    index: int
    text: str
    tokens: int
    logprobs: list[TokenLogprob] = []


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """Answer ``index`` is complete. A request is over when all its ``n`` answers are.

    ``stop`` is the stop string that ended it, the request's or the reply format's, if one did.
    """

    id: int
    index: int
    reason: FinishReason
    usage: Usage
    stop: str | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The whole request failed; no more events follow for it."""

    id: int
    error: ErrorInfo


Event = Accepted | PromptScored | Delta | Finished | Failed

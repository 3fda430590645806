"""Log probabilities in the forms of chat completions and of completions."""

from __future__ import annotations

from collections.abc import Sequence

from server.api.openai.schemas.chat_response import ChatLogprobs, ChatTokenLogprob, TopLogprob
from server.api.openai.schemas.completions import CompletionLogprobs
from server.core.events import TokenLogprob

# OpenAI's value for a token of probability 0; JSON has no infinity.
_LOWEST = -9999.0


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    """The form of chat completions, for generated tokens."""
    return ChatLogprobs(
        content=[
            ChatTokenLogprob(
                **_top(token.piece, token.logprob).model_dump(),
                top_logprobs=[_top(piece, logprob) for _, piece, logprob in token.top],
            )
            for token in tokens
        ],
        refusal=None,
    )


class LegacyLogprobs:
    """The form of completions, whose offsets count characters from the start of the text."""

    def __init__(self) -> None:
        self._characters = 0

    def wire(self, tokens: Sequence[TokenLogprob]) -> CompletionLogprobs:
        """The next tokens of the text; a logprob is None only for a prompt's first token."""
        return CompletionLogprobs(
            tokens=[_legacy_text(token.piece) for token in tokens],
            token_logprobs=[
                None if token.logprob is None else _bounded(token.logprob) for token in tokens
            ],
            top_logprobs=[_legacy_top(token) for token in tokens],
            text_offset=[self._offset(token.piece[token.unseen :]) for token in tokens],
        )

    def _offset(self, piece: bytes) -> int:
        """The offset of the character that ``piece`` begins with or continues."""
        inside = bool(piece) and _continues(piece[0])
        offset = self._characters - 1 if inside and self._characters else self._characters
        self._characters += sum(not _continues(byte) for byte in piece)
        return offset


def _top(piece: bytes, logprob: float | None) -> TopLogprob:
    return TopLogprob(
        # Part of a character is shown as \xe2, as OpenAI does; `bytes` has it exactly.
        token=piece.decode("utf-8", "backslashreplace"),
        logprob=_LOWEST if logprob is None else _bounded(logprob),
        bytes=list(piece),
    )


def _legacy_top(token: TokenLogprob) -> dict[str, float] | None:
    """Alternatives by text, best first, always with the token itself, as OpenAI has them."""
    if token.logprob is None:
        return None
    chosen = _legacy_text(token.piece), _bounded(token.logprob)
    found: dict[str, float] = {}
    for _, piece, logprob in token.top:
        found.setdefault(_legacy_text(piece), _bounded(logprob))
    found.setdefault(*chosen)
    return found


def _legacy_text(piece: bytes) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _bounded(logprob: float) -> float:
    return max(logprob, _LOWEST)


def _continues(byte: int) -> bool:
    """Whether ``byte`` is a later byte of a UTF-8 character."""
    return byte & 0xC0 == 0x80

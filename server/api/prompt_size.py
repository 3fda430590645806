"""How many tokens a conversation may have, known before a model has counted them."""

from __future__ import annotations

import math

import msgspec

from server.core.request import ChatPrompt, Message, images_of, texts_of

_MARKUP_BYTES = 64
"""A choice: the most that a template writes around a message, a call or a tool."""


def most_tokens(prompt: ChatPrompt) -> float:
    """A number that the tokens of ``prompt`` do not exceed, far above what they usually are.

    A token has a byte at least. Of images nothing is known.
    """
    if any(True for _ in images_of(prompt.messages)):
        return math.inf
    tools = (len(msgspec.json.encode(tool)) + _MARKUP_BYTES for tool in prompt.tools)
    return _MARKUP_BYTES + sum(tools) + sum(map(_most_tokens, prompt.messages))


def _most_tokens(message: Message) -> int:
    """The same of a message without images."""
    texts = texts_of(message)
    markup = _MARKUP_BYTES * (len(message.tool_calls) + 1)
    return markup + sum(len(text) if text.isascii() else len(text.encode()) for text in texts)

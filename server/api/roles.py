"""The roles of messages, as other APIs call them."""

from __future__ import annotations

_OTHER_NAMES = {"human": "user", "ai": "assistant", "model": "assistant"}
"""LangChain's and Gemini's."""


def usual_role(message: object) -> object:
    """``message`` with OpenAI's name of its role, in which capitals do not count.

    Anything else stays as it is, for the schema to judge.
    """
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(role, str):
        return message
    name = role.lower()
    usual = _OTHER_NAMES.get(name, name)
    return message if usual == role else {**message, "role": usual}

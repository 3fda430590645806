"""The end of a native prompt that already belongs to the reply."""

from __future__ import annotations

from server.core.reply_format import ReplyFormat
from server.core.request import ChatPrompt
from server.prompt.messages.parts import message_text
from server.reply.prefix import reply_prefix


def open_reply(prompt: ChatPrompt, text: str, reply_format: ReplyFormat | None) -> str:
    """The end of the native prompt ``text`` that the reply's parser must read first."""
    if reply_format is None:
        return ""
    start, end = reply_format.reasoning_edges
    if prompt.continue_final_message and start:
        written = message_text(prompt.messages[-1])
        if written.rfind(start) > written.rfind(end):
            return start
    return reply_prefix(text, reply_format)

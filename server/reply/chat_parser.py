"""The parser of an answer to a chat, as its request asks for it.

The worker and the API process both read an answer with it, so that both see the same end.
"""

from __future__ import annotations

from server.core.reply_format import ReplyFormat
from server.core.request import ChatPrompt, GenerationRequest
from server.reply.custom_tools import as_functions
from server.reply.parser import ReplyParser


def chat_parser(
    reply_format: ReplyFormat | None,
    request: GenerationRequest,
    *,
    prefix: str,
    tools_active: bool,
    answer: int = 0,
) -> ReplyParser:
    """A parser for answer number ``answer`` to ``request``, whose prompt is a chat.

    Where the request constrains the content, JSON in it is content, whatever it looks like.
    """
    prompt = request.prompt
    assert isinstance(prompt, ChatPrompt)
    return ReplyParser(
        reply_format,
        prefix=prefix,
        tools_active=tools_active,
        tools=as_functions(prompt).tools,
        stops=request.stop,
        taken_ids=[call.id for message in prompt.messages for call in message.tool_calls],
        tolerant=request.constraint is None,
        answer=answer,
    )

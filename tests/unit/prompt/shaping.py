"""Shaping a conversation for a template with given verdicts."""

from typing import Any

import msgspec

from server.core.request import ChatPrompt, Message
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.normalize import normalize

_VERDICTS: dict[str, Any] = dict.fromkeys(Capabilities.__struct_fields__, True)
_VERDICTS |= {"developer_role": False, "content_parts": False, "author_names": False}
NATIVE = Capabilities(**_VERDICTS)


def without(*names: str) -> Capabilities:
    return msgspec.structs.replace(NATIVE, **dict.fromkeys(names, False))


def shaped(capabilities: Capabilities, *messages: Message) -> list[dict[str, Any]]:
    chat = normalize(ChatPrompt(messages=list(messages)), capabilities)
    assert len(chat.sources) == len(chat.messages)
    return chat.messages

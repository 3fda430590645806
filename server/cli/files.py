"""Reads the files given to commands; every error names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from server.api.openai.conversation import chat_prompt
from server.api.openai.schemas.chat_request import ConversationFields
from server.api.tool_names import seen_by_model
from server.api.validation import validate
from server.cli.console import CommandError
from server.core.request import ChatPrompt

T = TypeVar("T")


def read_json(file: Path, kind: type[T]) -> T:
    """The JSON in ``file``, which must be of ``kind``; raises CommandError."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: {_reason(error)}") from error


def read_template(file: Path) -> str:
    """The text of ``file``, line ends as they are; raises CommandError."""
    try:
        return file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: {_reason(error)}") from error


def conversation(
    messages: list[Any],
    tools: list[Any] | None = None,
    *,
    add_generation_prompt: bool = True,
    template_kwargs: dict[str, Any] | None = None,
) -> ChatPrompt:
    """OpenAI's messages and tools as the prompt that a model sees; raises InvalidRequest."""
    body = {
        "messages": messages,
        "tools": tools,
        "add_generation_prompt": add_generation_prompt,
        "chat_template_kwargs": template_kwargs,
    }
    seen, _ = seen_by_model(chat_prompt(validate(body, ConversationFields)))
    assert isinstance(seen, ChatPrompt)
    return seen


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)

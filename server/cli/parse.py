"""`dragoman parse`: reads the message in a raw reply."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from server.cli.bare_template import open_bare_template
from server.cli.console import CommandError
from server.cli.files import conversation, read_json, read_template
from server.cli.options import takes_settings
from server.core.errors import ConversationError
from server.core.reply import message_of
from server.core.reply_format import ReplyFormat
from server.core.request import Message
from server.core.settings import Settings
from server.reply.parser import ReplyParser
from server.reply.prefix import reply_prefix


@takes_settings("config", "template_dirs")
def parse(
    settings: Settings,
    *,
    template: Annotated[
        Path, typer.Option(metavar="FILE.jinja", help="Chat template that the reply was made for.")
    ],
    tools: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Tools in OpenAI's format; some reply formats leave out the types of arguments.",
        ),
    ] = None,
) -> None:
    """Print the message in a raw reply, as JSON.

    The reply is read from standard input.
    """
    described = read_json(tools, list[Any]) if tools else []
    prompt = conversation([{"role": "user", "content": "Hello!"}], described)
    opened = open_bare_template(read_template(template), template.stem, settings)
    try:
        reply = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"standard input: {error}") from error
    reply_format = opened.reply_format
    try:
        prefix = _prefix(reply_format, opened.text(prompt), reply)
    except ConversationError:
        prefix = ""
    parser = ReplyParser(reply_format, prefix=prefix, tools_active=True, tools=prompt.tools)
    message = message_of([*parser.feed(reply), *parser.finish()])
    in_request = {tool.name: tool.name_in_request or tool.name for tool in prompt.tools}
    sys.stdout.write(msgspec.json.encode(_wire(message, in_request)).decode() + "\n")


def _prefix(reply_format: ReplyFormat | None, prompt: str, reply: str) -> str:
    """The start of the reply that the prompt already holds, unless ``reply`` includes it."""
    prefix = reply_prefix(prompt, reply_format) if reply_format else ""
    return "" if reply.lstrip().startswith(prefix.strip()) else prefix


def _wire(message: Message, in_request: Mapping[str, str]) -> dict[str, Any]:
    """The message in OpenAI's form; absent fields are left out, except for the content.

    Args:
        message: The message.
        in_request: The names of tools in the request by those that the model sees.
    """
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning_content is not None:
        wire["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": in_request.get(call.name, call.name),
                    "arguments": call.arguments,
                },
            }
            for call in message.tool_calls
        ]
    return wire

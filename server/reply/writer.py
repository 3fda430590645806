"""Writing calls as a family does: the inverse of the parser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from server.core.reply_format import GEMMA_QUOTE, Calls
from server.core.request import ToolCall


def write_calls(calls: Sequence[ToolCall], syntax: Calls) -> str:
    """The text in which a model calls; arguments that are no JSON object stand as they are.

    Args:
        calls: At least one call.
        syntax: The family's call syntax; where it has no place for several, they just follow each
            other.
    """
    written = (_write_call(call, index, syntax) for index, call in enumerate(calls))
    return f"{syntax.begin}{syntax.separator.join(written)}{syntax.end}"


def _write_call(call: ToolCall, index: int, syntax: Calls) -> str:
    # The arguments come last, so that placeholders in them are left alone.
    head, tail = syntax.call.split("{arguments}", 1)
    for place, text in (("{name}", call.name), ("{id}", call.id), ("{index}", str(index))):
        head, tail = head.replace(place, text), tail.replace(place, text)
    return head + _write_arguments(call.arguments, syntax) + tail


def _write_arguments(text: str, syntax: Calls) -> str:
    try:
        arguments = json.loads(text)
    except ValueError:
        return text
    if syntax.dialect == "json" or not isinstance(arguments, dict):
        return text
    if syntax.dialect == "gemma":
        return _gemma(arguments)
    if syntax.dialect == "pythonic":
        return ", ".join(f"{key}={_python(value)}" for key, value in arguments.items())
    return "".join(_tagged(key, value, syntax.argument) for key, value in arguments.items())


def _tagged(key: str, value: Any, pattern: str) -> str:
    is_string = isinstance(value, str)
    head, tail = pattern.split("{value}")
    head = head.replace("{string}", "true" if is_string else "false").replace("{key}", key)
    return head + (value if is_string else json.dumps(value, ensure_ascii=False)) + tail


def _python(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else repr(value)


def _gemma(value: Any) -> str:
    if isinstance(value, str):
        return f"{GEMMA_QUOTE}{value}{GEMMA_QUOTE}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_gemma(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_gemma, value)) + "]"
    return json.dumps(value)

"""Reply formats from tables: those of the server, and those of families."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from server.core.reply_format import ReplyFormat
from server.reply.dialects.table import dialect_of


def format_from_table(table: Mapping[str, Any], where: str) -> ReplyFormat:
    """The format that a ``[reply]`` table describes.

    ``format = "hermes"`` starts from a built-in format; the other keys replace parts of it.

    Args:
        table: The decoded TOML table.
        where: The file, for messages.

    Raises:
        ValueError: A key or value is wrong; the message names the file and the key.
    """
    fields: dict[str, Any] = {"name": "custom", **table}
    while "format" in fields:
        base = fields.pop("format")
        if base not in builtin_tables():
            known = ", ".join(sorted(builtin_tables()))
            raise ValueError(f"{where}: [reply] format {base!r} is none of {known}")
        builtin = {**builtin_tables()[base], "name": base}
        del builtin["select"]
        fields = builtin | fields | {"name": base}
    try:
        reply_format = msgspec.convert(fields, ReplyFormat)
        if reply_format.calls:
            dialect_of(reply_format.calls)
    except ValueError as error:
        raise ValueError(f"{where}: [reply] {error}") from None
    return reply_format


@cache
def builtin_tables() -> dict[str, dict[str, Any]]:
    """The tables of ``formats.toml`` by name: a ``[reply]`` table each, plus ``select``."""
    text = Path(__file__).with_name("formats.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def builtin_format(name: str) -> ReplyFormat:
    """The built-in format called ``name``."""
    return format_from_table({"format": name}, "formats.toml")

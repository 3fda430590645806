"""The log: one line per record on standard error, as text or as JSON."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Literal

import msgspec

from server.core.ids import request_id

# What can stand in a line of text without quotes.
_WORD = re.compile(r"[\w./:@+-]+", re.ASCII)


def configure_logging(log_format: Literal["text", "json"], level: str) -> None:
    """Send the log to standard error, one line per record, with the request's id."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def fields_text(fields: Mapping[str, object]) -> str:
    """``fields`` as words like ``name=value``; values of other characters are quoted as in JSON."""
    return " ".join(f"{name}={_word(str(value))}" for name, value in fields.items())


def _word(value: str) -> str:
    return value if _WORD.fullmatch(value) else msgspec.json.encode(value).decode()


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = request_id.get()
        return super().format(record)


class _JsonFormatter(logging.Formatter):
    """One JSON object per record; the record's ``fields`` become keys."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": request_id.get(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()

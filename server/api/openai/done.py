"""The mark that ends OpenAI's streams."""

from __future__ import annotations

from server.api.family import Frame

DONE = Frame(b"[DONE]")

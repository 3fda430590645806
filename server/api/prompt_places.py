"""Places in a request with several prompts: they say which of the prompts is meant."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from server.core.errors import DragomanError

T = TypeVar("T")

PROMPTS = "prompts"
"""The name of the list of prompts in a canonical place: ``("prompts", 1)`` is the second one."""


async def about_prompt(number: int, events: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """``events`` of prompt ``number``; errors about ``("prompt", …)`` say the number."""
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except DragomanError as error:
            if error.at[:1] != ("prompt",):
                raise
            raise error.moved((PROMPTS, number, *error.at[1:])) from error

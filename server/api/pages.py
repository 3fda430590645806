"""Lists that are given page by page, in the form that OpenAI's and Anthropic's APIs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Self, TypeVar

from pydantic import BaseModel


class Identified(BaseModel):
    """What a page can list: its id asks for the page behind it."""

    id: str


Entry = TypeVar("Entry", bound=Identified)


class Page(BaseModel, Generic[Entry]):
    """Some entries of a list, the ids of both ends, and whether there are more behind them."""

    data: list[Entry]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: Sequence[Entry], *, more: bool) -> Self:
        """The page of ``data``."""
        return cls(
            data=list(data),
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=more,
        )

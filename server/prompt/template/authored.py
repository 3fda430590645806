"""Texts of messages that the server wrote in part: how to call tools, and calls in words.

The guard leaves what the server wrote as it is, so that call markers in it are the model's control
tokens, and disguises the request's texts in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Self

Author = Literal["server", "request", "value"]
"""Who wrote a stretch. A ``value`` is text of the request that a template must not take apart."""


class Authored(str):
    """A text with the author of each of its characters.

    Attributes:
        stretches: Author and length of each stretch, in order.
    """

    __slots__ = ("stretches",)
    stretches: tuple[tuple[Author, int], ...]

    def __new__(cls, text: str, stretches: Iterable[tuple[Author, int]] = ()) -> Self:
        """``text`` in ``stretches``, which together are as long."""
        made = super().__new__(cls, text)
        made.stretches = tuple(stretches)
        return made

    def pieces(self) -> Iterator[tuple[Author, str]]:
        """Author and text of each stretch."""
        start = 0
        for author, length in self.stretches:
            yield author, self[start : start + length]
            start += length


def by_server(text: str) -> Authored:
    """A text that the server wrote."""
    return Authored(text, [("server", len(text))])


def joined_texts(separator: str, texts: Iterable[str]) -> str:
    """``separator.join(texts)``, which keeps the authors."""
    listed = list(texts)
    made = separator.join(listed)
    if not any(isinstance(text, Authored) for text in listed):
        return made
    stretches: list[tuple[Author, int]] = []
    for number, text in enumerate(listed):
        if number:
            stretches.append(("request", len(separator)))
        whole: tuple[tuple[Author, int], ...] = (("request", len(text)),)
        stretches += text.stretches if isinstance(text, Authored) else whole
    return Authored(made, stretches)


def sliced(text: str, start: int, end: int) -> str:
    """``text[start:end]``, which keeps the authors."""
    if not isinstance(text, Authored):
        return text[start:end]
    stretches: list[tuple[Author, int]] = []
    before = 0
    for author, length in text.stretches:
        shared = min(end, before + length) - max(start, before)
        if shared > 0:
            stretches.append((author, shared))
        before += length
    return Authored(text[start:end], stretches)

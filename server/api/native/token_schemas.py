"""Bodies and answers of ``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from server.api.validation import Respelled, WireModel
from server.core.sampling import INT32_MAX

TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
MOST_TOKENS = 1_000_000
"""A choice: what is answered in about a second."""


class TokenizeBody(WireModel):
    """A text, or texts and tokens in order; ``prompt`` is vLLM's name for ``content``."""

    model: str | None = Field(None, description="May be left out where there is one model.")
    content: str | Annotated[list[str | TokenId], Field(max_length=MOST_TOKENS)]
    add_special: bool | None = Field(
        None, description="Whether BOS and its kin are added; default: no, with ``prompt`` yes."
    )
    parse_special: bool | None = Field(
        None, description="Whether control tokens spelt out in a text count; default: yes."
    )
    with_pieces: bool | None = Field(
        None,
        description="Whether tokens are objects with a ``piece``: a text, or a list of bytes where "
        "it is a part of a character.",
    )
    with_offsets: bool | None = Field(
        None, description="Whether ``offsets`` say where in the text each token begins and ends."
    )
    return_token_strs: bool | None = Field(None, description="vLLM's word for ``token_strs``.")

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under our names for vLLM's."""
        if "prompt" not in body or "content" in body:
            return Respelled(body)
        rest = {name: value for name, value in body.items() if name != "prompt"}
        special = rest.pop("add_special_tokens", None)
        rest.setdefault("add_special", True if special is None else special)
        places = {"content": ("prompt",), "add_special": ("add_special_tokens",)}
        return Respelled({**rest, "content": body["prompt"]}, places)


class DetokenizeBody(WireModel):
    """Tokens to be put together."""

    model: str | None = Field(None, description="May be left out where there is one model.")
    tokens: Annotated[list[TokenId], Field(max_length=MOST_TOKENS)]


class TokenPiece(BaseModel):
    """A token and its text, or its bytes where they are no whole characters."""

    id: int
    piece: str | list[int]


class TokenList(BaseModel):
    """The tokens of a text; ``count`` and ``max_model_len`` are vLLM's.

    ``offsets`` count characters, from 0; a character that several tokens share belongs to all.
    """

    tokens: list[int] | list[TokenPiece]
    offsets: list[tuple[int, int]] | None = None
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class TokensText(BaseModel):
    """The text of tokens; ``prompt`` is vLLM's name for ``content``.

    Bytes that are no whole character are U+FFFD there, and ``bytes`` has them as they are.
    """

    content: str
    prompt: str
    bytes: list[int] | None = None

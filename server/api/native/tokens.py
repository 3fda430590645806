"""``POST /tokenize`` and ``/detokenize``, with the bodies and answers of llama.cpp's server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.context import context
from server.api.endpoint import described_body, located, read
from server.api.ignored_names import ignored_header, unknown_names
from server.api.native.token_schemas import (
    DetokenizeBody,
    TokenizeBody,
    TokenList,
    TokensText,
)
from server.api.unnamed_model import unnamed_model
from server.api.validation import to_json
from server.core.errors import Locator
from server.core.model_info import ModelInfo
from server.core.tokens import TokenizeRequest, Tokens
from server.http.disconnect import unless_gone

router = APIRouter()


@router.post("/tokenize", response_model=TokenList, openapi_extra=described_body(TokenizeBody))
async def tokenize(request: Request) -> Response:
    """The tokens of a text, as the model's vocabulary has them."""
    body = await read(request, TokenizeBody)
    parts: list[str | int] = [body.content] if isinstance(body.content, str) else [*body.content]
    wanted = TokenizeRequest(
        parts=parts,
        add_special=bool(body.add_special),
        parse_special=body.parse_special is not False,
        pieces=bool(body.with_pieces or body.with_offsets or body.return_token_strs),
    )

    def placed(at: Locator) -> Locator:
        one = isinstance(body.content, str)
        return body.place(("content", *(() if one else at[1:])) if at[:1] == ("parts",) else at)

    info, tokens = await _tokens(request, body.model, wanted, placed)
    answer, ignored = await asyncio.to_thread(_listed, body, tokens, info)
    headers = ignored_header([*unknown_names(body), *ignored])
    return Response(answer, media_type="application/json", headers=headers)


@router.post("/detokenize", response_model=TokensText, openapi_extra=described_body(DetokenizeBody))
async def detokenize(request: Request) -> Response:
    """The text of tokens, control tokens included."""
    body = await read(request, DetokenizeBody)

    def placed(at: Locator) -> Locator:
        return ("tokens", *at[1:]) if at[:1] == ("parts",) else at

    wanted = TokenizeRequest(parts=[*body.tokens])
    _, tokens = await _tokens(request, body.model, wanted, placed)
    text = tokens.text.decode("utf-8", "replace")
    answer = TokensText(content=text, prompt=text)
    if text.encode() != tokens.text:
        answer.bytes = list(tokens.text)
    headers = ignored_header(unknown_names(body))
    return Response(to_json(answer), media_type="application/json", headers=headers)


async def _tokens(
    request: Request,
    model: str | None,
    wanted: TokenizeRequest,
    placed: Callable[[Locator], Locator],
) -> tuple[ModelInfo, Tokens]:
    shared = context(request)
    name = model or unnamed_model(shared.pool, "has a vocabulary", lambda _: True)
    client = await unless_gone(request, shared.open(name))
    with located(placed):
        return client.info, await unless_gone(request, client.tokenize(wanted))


def _listed(body: TokenizeBody, tokens: Tokens, info: ModelInfo) -> tuple[bytes, list[str]]:
    """A `TokenList`, and the names of what could not be served."""
    answer: dict[str, Any] = {
        "tokens": _with_pieces(tokens) if body.with_pieces else tokens.ids,
        "count": len(tokens.ids),
        "max_model_len": info.context,
    }
    ignored = []
    if body.with_offsets:
        answer["offsets"] = _offsets(body.content, tokens)
        ignored = ["with_offsets"] if answer["offsets"] is None else []
    if body.return_token_strs:
        answer["token_strs"] = [piece.decode("utf-8", "replace") for piece in tokens.pieces]
    return msgspec.json.encode(answer), ignored


def _with_pieces(tokens: Tokens) -> list[dict[str, Any]]:
    """Each token with its text: one object for all of a kind, since a long text has millions."""
    kinds: dict[tuple[int, bytes], dict[str, Any]] = {}
    found = []
    for kind in zip(tokens.ids, tokens.pieces, strict=True):
        if kind not in kinds:
            kinds[kind] = {"id": kind[0], "piece": _shown(kind[1])}
        found.append(kinds[kind])
    return found


def _shown(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def _offsets(content: str | Sequence[str | int], tokens: Tokens) -> list[tuple[int, int]] | None:
    """Where each token begins and ends, in characters; None where they do not spell the text.

    Of texts and tokens in order, the text is what they spell together. Tokens that were added lie
    at its ends.
    """
    text, start = tokens.text, 0
    if isinstance(content, str):
        start = sum(map(len, tokens.pieces[: tokens.added]))
        text = text[start : start + len(content.encode())]
        if text != content.encode():
            return None
    # A character begins with each byte that does not continue one (10xxxxxx).
    begins = [byte & 0xC0 != 0x80 for byte in text]
    characters = list(accumulate(begins, initial=0))
    found, place = [], -start
    for piece in tokens.pieces:
        first, end = (min(max(at, 0), len(text)) for at in (place, place + len(piece)))
        inside = first < end and not begins[first]
        found.append((characters[first] - inside, characters[end]))
        place += len(piece)
    return found

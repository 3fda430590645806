"""Texts as tokens and back, on a thread of its own: long texts take seconds."""

from __future__ import annotations

from collections.abc import Sequence

from server.core.errors import InvalidRequest
from server.core.tokens import MOST_PIECES, TokenizeRequest, Tokens
from server.engine.llama.vocabulary import LlamaVocabulary
from server.worker.protocol import Tokenize, Tokenized
from server.worker.serve.connection import Send
from server.worker.serve.request_queue import RequestQueue


class TokenService:
    """Answers requests for tokens in order of arrival."""

    def __init__(self, vocabulary: LlamaVocabulary, send: Send) -> None:
        self._vocabulary = vocabulary
        self._send = send
        self._queue: RequestQueue[Tokenize] = RequestQueue(
            self._answer, send, failure="The tokens could not be found"
        )

    def submit(self, request: Tokenize) -> None:
        """Queue ``request``; from any thread."""
        self._queue.put(request)

    def run(self) -> None:
        """Answer requests until the process ends."""
        self._queue.run()

    def _answer(self, request: Tokenize) -> None:
        self._send(Tokenized(id=request.id, tokens=tokenized(self._vocabulary, request.request)))


def tokenized(vocabulary: LlamaVocabulary, request: TokenizeRequest) -> Tokens:
    """The tokens of a request.

    Raises InvalidRequest for a token that the vocabulary does not have, and for too many pieces.
    """
    ids: list[int] = []
    added = 0
    for place, part in enumerate(request.parts):
        if isinstance(part, str):
            tokens = vocabulary.tokenize(part, parse_special=request.parse_special)
            if request.add_special and place == 0:
                added, tokens = _between_ends(vocabulary, part, tokens, request)
            ids += tokens
        elif 0 <= part < vocabulary.size:
            ids.append(part)
        else:
            raise InvalidRequest(
                f"Token {part} is outside the vocabulary of {vocabulary.size} tokens.",
                at=("parts", place),
            )
    if request.pieces and len(ids) > MOST_PIECES:
        raise InvalidRequest(
            f"The text has {len(ids):,} tokens, of which each would be listed with its text; at "
            f"most {MOST_PIECES:,} are. Without that, there is no limit.",
            at=("parts",),
        )
    spelt = pieces(vocabulary, ids) if request.pieces else []
    return Tokens(ids=ids, pieces=spelt, added=added)


def _between_ends(
    vocabulary: LlamaVocabulary, text: str, tokens: list[int], request: TokenizeRequest
) -> tuple[int, list[int]]:
    """How many tokens the vocabulary puts in front of ``tokens`` of ``text``, and all of them."""
    whole = vocabulary.tokenize(text, parse_special=request.parse_special, add_special=True)
    places = range(len(whole) - len(tokens) + 1)
    return next((at for at in places if whole[at : at + len(tokens)] == tokens), 0), whole


def pieces(vocabulary: LlamaVocabulary, ids: Sequence[int]) -> list[bytes]:
    """The bytes of each token, without spaces that the tokenizer puts in front of texts itself.

    It puts one at the beginning and behind each special token, so that the tokens of a text spell
    that text and nothing more.
    """
    found = [vocabulary.piece(token) for token in ids]
    if not vocabulary.begins_with_space:
        return found
    special = {token.id for token in vocabulary.special_tokens}
    starts = True
    for place, token in enumerate(ids):
        if token in special:
            starts = True
        elif starts:
            found[place] = found[place].removeprefix(b" ")
            starts = False
    return found

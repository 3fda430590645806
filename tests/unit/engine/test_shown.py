"""Which bytes of tokens are in the text of an echoed prompt."""

from __future__ import annotations

from typing import cast

import pytest

from server.core.events import TokenLogprob
from server.engine.backend import Backend
from server.engine.shown import in_prompt

CONTROL = {"<bos>": 1, "<eos>": 2}


class Vocabulary:
    def is_control(self, token: int) -> bool:
        return token in CONTROL.values()


@pytest.mark.parametrize(
    ("text", "pieces", "unseen"),
    [
        ("a", ["<bos>", "a"], [5, 0]),
        ("", ["<bos>"], [5]),
        ("<bos>a", ["<bos>", "a"], [0, 0]),
        ("a b", ["<bos>", " a", " b"], [5, 1, 0]),
        ("a b", [" a", " b"], [1, 0]),
        (" a", ["<bos>", " a"], [5, 0]),
        ("a<eos>b", ["<bos>", "a", "<eos>", "b"], [5, 0, 0, 0]),
        ("ab", ["<bos>", "a", "<eos>", "b"], [5, 0, 5, 0]),
        ("e\u0301 b", ["<bos>", "é", " b"], [5, 0, 0]),
    ],
)
def test_what_the_tokenizer_put_into_a_prompt_is_unseen(
    text: str, pieces: list[str], unseen: list[int]
) -> None:
    tokens = [
        TokenLogprob(CONTROL.get(piece, 9), piece.encode(), None if at == 0 else -1.0)
        for at, piece in enumerate(pieces)
    ]
    placed = in_prompt(tokens, text, cast("Backend", Vocabulary()))
    assert [token.unseen for token in placed] == unseen
    assert [token.piece for token in placed] == [token.piece for token in tokens]

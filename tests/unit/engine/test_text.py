from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.text import TextStream


def stream(pieces: list[bytes], stops: list[str], **options: bool) -> tuple[list[str], bool]:
    """What each piece let out, the end included, and whether a stop string ended it."""
    text = TextStream(stops, **options)
    shown = [text.push(piece) for piece in pieces]
    return [*shown, text.finish()], text.stopped


def test_a_character_split_over_tokens_comes_out_whole() -> None:
    shown, _ = stream(["é".encode()[:1], "é".encode()[1:]], [])
    assert shown == ["", "é", ""]


def test_an_unfinished_character_at_the_end_is_left_out() -> None:
    assert "".join(stream([b"ab", "é".encode()[:1]], [])[0]) == "ab"


def test_text_that_may_become_a_stop_is_held_back() -> None:
    shown, stopped = stream([b"one\nHu", b"mble"], ["\nHuman:"])
    assert shown == ["one", "\nHumble", ""]
    assert not stopped


def test_a_stop_over_several_tokens_is_left_out_with_what_follows() -> None:
    shown, stopped = stream([b"yes\nHu", b"man", b": no"], ["\nHuman:"])
    assert "".join(shown) == "yes"
    assert stopped


def test_the_earliest_stop_wins() -> None:
    assert "".join(stream([b"a b c"], ["c", "b"])[0]) == "a "


@pytest.mark.parametrize(
    ("stops", "stop"),
    [(["c", "b"], "b"), (["bc", "b"], "bc"), (["b", "bc"], "b"), (["x"], None), ([], None)],
)
def test_it_says_which_stop_ended_the_text(stops: list[str], stop: str | None) -> None:
    text = TextStream(stops)
    text.push(b"a bc")
    text.push(b"x" if stop else b"")
    assert text.stop == stop


def test_one_leading_space_is_stripped_where_it_belongs_to_the_format() -> None:
    assert "".join(stream([b" ", b" Canberra"], [], strip_leading_space=True)[0]) == " Canberra"


@given(
    st.text(alphabet="ab\nH:é", max_size=40),
    st.lists(st.text(alphabet="ab\nH:é", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(1, 5), min_size=1, max_size=40),
)
def test_any_chunking_shows_the_text_up_to_the_first_stop(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    raw = text.encode()
    pieces, at = [], 0
    for size in sizes * (len(raw) // len(sizes) + 1):
        pieces.append(raw[at : at + size])
        at += size
    found = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    expected = text[: min(found)] if found else text
    shown, stopped = stream(pieces, stops)
    # Of overlapping stops the one that is complete first ends the text.
    assert expected.startswith("".join(shown)) or "".join(shown).startswith(expected)
    assert stopped == bool(found)
    if len(set(stops)) <= 1:
        assert "".join(shown) == expected

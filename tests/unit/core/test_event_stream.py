"""Server-sent events are read as the HTML standard says, however their bytes arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.event_stream import EventStreamParser, ServerSentEvent


def read(*pieces: bytes) -> list[ServerSentEvent]:
    parser = EventStreamParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def typed(*events: tuple[bytes, bytes]) -> list[ServerSentEvent]:
    return [ServerSentEvent(data, kind) for data, kind in events]


def data_of(stream: bytes) -> list[bytes]:
    return [event.data for event in read(stream)]


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        # The examples of section 9.2.6, then of what servers send.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [b"YHOO\n+2\n10"]),
        (
            b": test\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
            [b"first event", b"second event"],
        ),
        (b"data\n\ndata\ndata\n\ndata:\n", [b"", b"\n"]),
        (b"data:test\n\ndata: test\n\n", [b"test", b"test"]),
        (b'data: {"a": "b: c"}\n\n', [b'{"a": "b: c"}']),
        (b"retry: 10\nunknown: 1\nDATA: 2\n data: 3\n\n", []),
        (b":\n\n: ping\n\n", []),
        (b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data: a\x0bb\x0cc\xc2\x85d\xe2\x80\xa8e\n\n", [b"a\x0bb\x0cc\xc2\x85d\xe2\x80\xa8e"]),
    ],
)
def test_data_is_what_the_standard_says(stream: bytes, data: list[bytes]) -> None:
    assert data_of(stream) == data


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_lf_cr_lf_or_cr(end: bytes) -> None:
    stream = end.join([b": ping", b"", b"data: a", b"data: b", b"", b"data: c", b"", b""])
    assert data_of(stream) == [b"a\nb", b"c"]


def test_an_event_has_the_type_named_last_and_else_is_a_message() -> None:
    stream = b"event: ping\n\ndata: a\n\nevent: x\nevent: delta\ndata: b\n\nevent:\ndata: c\n\n"
    assert read(stream) == typed((b"a", b"message"), (b"b", b"delta"), (b"c", b"message"))


def test_an_event_is_there_as_soon_as_its_empty_line_is() -> None:
    parser = EventStreamParser()
    assert parser.feed(b"data: a\r\n") == []
    assert parser.feed(b"\r") == [ServerSentEvent(b"a")]
    assert parser.feed(b"\ndata: b") == []
    assert parser.feed(b"\n\n") == [ServerSentEvent(b"b")]


STREAM = (
    b"\xef\xbb\xbf: ping\n\ndata: one\n\nevent: x\r\ndata:two\r\n\r\ndata: 3a\ndata: 3b\n\n"
    b":\r\rdata: four\r\revent: y\rdata\r\n\r\ndata: end"
)


@given(st.lists(st.integers(min_value=1, max_value=40)))
def test_events_are_the_same_however_the_bytes_are_cut(lengths: list[int]) -> None:
    pieces, at = [], 0
    for length in lengths:
        pieces.append(STREAM[at : at + length])
        at += length
    pieces = [piece for piece in [*pieces, STREAM[at:]] if piece]
    assert read(*pieces) == typed(
        (b"one", b"message"),
        (b"two", b"x"),
        (b"3a\n3b", b"message"),
        (b"four", b"message"),
        (b"", b"y"),
    )
    assert b"".join(pieces) == STREAM


def test_single_bytes_make_the_same_events() -> None:
    assert read(*(bytes([value]) for value in STREAM)) == read(STREAM)

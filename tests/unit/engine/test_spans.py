"""Spans end to end: positions, cache keys and batches are what each span says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.core.request import ImagePart
from server.engine.batch import Batch
from server.engine.spans import ImageSpan, Keys, Place, Span, Spans, TokenSpan
from server.engine.vision.encodable import EncodableImage
from server.engine.vision.picture_source import PictureSource

parts = st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=4)


def added(batch: Batch) -> list[tuple[int, int, bool]]:
    """Token, position and whether logits are wanted, for all in the batch."""
    rows = zip(batch.tokens, batch.positions, batch.wants_logits, strict=True)
    return [(int(t), int(p), bool(w)) for t, p, w in rows][: batch.size]


@given(parts, st.lists(st.integers(0, 99), max_size=5), st.data())
def test_runs_of_tokens_are_one_text(
    prompt: list[list[int]], answer: list[int], data: st.DataObject
) -> None:
    spans = Spans(TokenSpan(ids) for ids in prompt)
    for token in answer:
        spans.append(token)
    whole = [token for ids in prompt for token in ids] + answer
    assert spans.length == len(whole)
    assert spans.keys().tolist() == whole
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    logits_from = data.draw(st.integers(0, end - start))
    batch = Batch(64)
    batch.add(9, np.array([5], dtype=np.int32), 0, 0)
    row = spans.add_to(batch, 7, start, end, logits_from)
    assert row == 1
    assert batch.outputs == 1 + end - start - logits_from
    assert batch.sequence_ids[: batch.size].tolist() == [9] + [7] * (end - start)
    assert added(batch)[1:] == [
        (whole[cell], cell, cell - start >= logits_from) for cell in range(start, end)
    ]


def test_growth_leaves_earlier_views_as_they_were() -> None:
    spans = Spans([TokenSpan(range(10))])
    before = spans.keys()
    for token in range(10, 5000):
        spans.append(token)
    assert before.tolist() == list(range(10))
    assert spans.keys().tolist() == list(range(5000))
    assert spans.keys(4, 7).tolist() == [4, 5, 6]


def test_a_fork_grows_on_its_own() -> None:
    spans = Spans([TokenSpan([1, 2])])
    twin = spans.fork()
    spans.append(3)
    twin.append(4)
    assert spans.keys().tolist() == [1, 2, 3]
    assert twin.keys().tolist() == [1, 2, 4]


@dataclass
class Picture:
    """What is not tokens: its cells share one position, and its keys come from its content."""

    cells: int
    content: int
    batched: list[tuple[int, int, int]]

    def __len__(self) -> int:
        return self.cells

    positions = 1

    @property
    def keys(self) -> Keys:
        return np.arange(self.content, self.content - self.cells, -1, dtype=np.int32)

    def add_to(
        self, batch: Batch, keys: Keys, sequence_id: int, place: Place, logits_from: int
    ) -> None:
        assert logits_from == len(keys), "a picture has no next token"
        self.batched.append((sequence_id, place.position + place.offset, len(keys)))


def with_picture(ids: Sequence[int], picture: Picture, rest: Sequence[int]) -> Spans:
    return Spans([TokenSpan(ids), cast("Span", picture), TokenSpan(rest)])


def test_what_is_not_tokens_lies_between_tokens() -> None:
    picture = Picture(4, content=-100, batched=[])
    spans = with_picture([1, 2], picture, [3])
    spans.append(6)
    assert spans.keys().tolist() == [1, 2, -100, -101, -102, -103, 3, 6]
    assert [spans.position(cell) for cell in (0, 1, 6, 7, 8)] == [0, 1, 3, 4, 5]
    batch = Batch(16)
    assert spans.add_to(batch, 7, 0, spans.length, spans.length - 1) == 0
    assert added(batch) == [(1, 0, False), (2, 1, False), (3, 3, False), (6, 4, True)]
    assert picture.batched == [(7, 2, 4)]


def test_another_picture_has_other_keys() -> None:
    first = with_picture([1], Picture(3, content=-100, batched=[]), [2])
    second = with_picture([1], Picture(3, content=-200, batched=[]), [2])
    assert (first.keys() != second.keys()).tolist() == [False, True, True, True, False]


def image(cells: int = 5, positions: int = 2) -> EncodableImage:
    places = np.zeros((4, cells), dtype=np.int32)
    places[1] = np.arange(cells)
    return EncodableImage(
        cells=cells,
        positions=positions,
        digest=b"image",
        source=PictureSource(ImagePart(b"")),
        index=0,
        causal=True,
        places=places,
    )


def test_an_image_is_a_batch_of_its_own_at_its_place() -> None:
    spans = Spans([TokenSpan([1, 2, 3]), ImageSpan(image()), TokenSpan([4])])
    spans.append(5)
    assert spans.length == 10
    assert [spans.position(cell) for cell in (0, 3, 8, 9, 10)] == [0, 3, 5, 6, 7]
    found = spans.image_from(1)
    assert found is not None
    start, span = found
    assert start == 3
    span.embeddings = np.ones((5, 6), dtype=np.float32)
    batch = Batch(4)
    assert spans.add_to(batch, 7, 3, 8, 5) == 0
    assert (batch.size, batch.outputs) == (5, 0)
    assert batch.image is not None
    assert batch.image.positions.tolist() == [[3] * 5, [3, 4, 5, 6, 7], [3] * 5, [0] * 5]
    assert batch.image.is_end
    assert not batch.image.wants_logits


def test_a_part_of_an_image_keeps_its_places() -> None:
    spans = Spans([TokenSpan([1, 2, 3]), ImageSpan(image()), TokenSpan([4])])
    spans.images_from(0)[0].embeddings = np.arange(30, dtype=np.float32).reshape(5, 6)
    batch = Batch(4)
    spans.add_to(batch, 7, 4, 6, 2)
    assert batch.image is not None
    assert batch.image.embeddings[:, 0].tolist() == [6, 12]
    assert batch.image.positions.tolist() == [[3] * 2, [4, 5], [3] * 2, [0] * 2]
    assert not batch.image.is_end


def test_an_answer_may_begin_behind_an_image() -> None:
    spans = Spans([TokenSpan([1]), ImageSpan(image())])
    spans.append(9)
    assert spans.keys().tolist() == [1, *image().keys, 9]
    assert [spans.position(cell) for cell in (6, 7)] == [3, 4]
    batch = Batch(4)
    spans.images_from(0)[0].embeddings = np.ones((5, 6), dtype=np.float32)
    spans.add_to(batch, 0, 1, 6, 4)
    assert batch.outputs == 1

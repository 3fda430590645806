"""What a server made is named in later requests."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.connections import Sent
from tests.fuzz.made import NO_FILE, Made

pytestmark = pytest.mark.fast


def named(sent: Sent, *answers: bytes) -> set[Sent]:
    made = Made(Random(1), ["tiny"])
    for answer in answers:
        made.note(answer)
    return {made.named(sent) for _ in range(100)} - {sent}


def get(path: str, target: bytes) -> Sent:
    return Sent("GET", path, target, (), b"")


def test_ids_of_answers_stand_in_the_places_of_paths() -> None:
    path = "/v1/conversations/{conversation_id}/items/{item_id}"
    answer = b'{"id":"conv_1","items":[{"id":"msg_2","file":"file-3"}]}'
    found = named(get(path, b"/v1/conversations/0/items/0?include=x"), answer)
    assert {each.target for each in found} == {b"/v1/conversations/conv_1/items/msg_2?include=x"}
    found = named(get("/v1/batches/{batch_id}", b"/v1/batches/0"), answer)
    assert {each.target for each in found} == {b"/v1/batches/none"}


def test_batches_read_files_that_were_made() -> None:
    sent = Sent("POST", "/v1/batches", b"/v1/batches", (), b'{"input_file_id":%b}' % NO_FILE)
    assert {each.content for each in named(sent)} == {b'{"input_file_id":"none"}'}
    assert {each.content for each in named(sent, b'{"id": "file-3"}')} == {
        b'{"input_file_id":"file-3"}'
    }


def test_models_are_named_by_the_names_they_have() -> None:
    found = named(get("/v1/models/{model_id}", b"/v1/models/x"))
    assert {each.target for each in found} == {b"/v1/models/tiny"}

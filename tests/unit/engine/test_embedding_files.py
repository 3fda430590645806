"""Encoded images on disk come back as they were, to their owner, or not at all."""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xxhash

from server.core.prefix_folder import segment_files, sweep
from server.engine.disk.embedding_files import EmbeddingFiles
from server.engine.vision.encodable import Embeddings
from server.engine.vision.encodings import Encodings
from tests.unit.engine.test_encodings import Encoder, piece

EMBEDDINGS: Embeddings = np.arange(12, dtype=np.float32).reshape(3, 4)


def files(
    folder: Path,
    fingerprint: bytes | Callable[[], bytes | None] = b"f" * 16,
    most_bytes: int = 1 << 20,
) -> EmbeddingFiles:
    known = (lambda: fingerprint) if isinstance(fingerprint, bytes) else fingerprint
    return EmbeddingFiles(
        folder, most_bytes=most_bytes, daily_bytes=1 << 24, most_age=3600, fingerprint=known
    )


def test_what_was_written_is_read_by_another_process(tmp_path: Path) -> None:
    files(tmp_path / "new").write("alice", b"digest", EMBEDDINGS)
    found = files(tmp_path / "new").read("alice", b"digest")
    assert found is not None
    assert found.tobytes() == EMBEDDINGS.tobytes()
    assert found.shape == EMBEDDINGS.shape
    (file,) = segment_files(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("owner", "digest", "fingerprint"),
    [("bob", b"digest", b"f"), ("alice", b"other", b"f"), ("alice", b"digest", b"g")],
    ids=["another key", "another image", "another model"],
)
def test_it_is_not_found_for(tmp_path: Path, owner: str, digest: bytes, fingerprint: bytes) -> None:
    files(tmp_path).write("alice", b"digest", EMBEDDINGS)
    assert files(tmp_path, fingerprint * 16).read(owner, digest) is None


def test_a_damaged_file_is_removed_and_never_used(tmp_path: Path) -> None:
    files(tmp_path).write("", b"digest", EMBEDDINGS)
    (file,) = segment_files(tmp_path)
    whole = file.path.read_bytes()
    for cut in range(len(whole)):
        changed = bytearray(whole)
        changed[cut] ^= 1
        for data in (whole[:cut], bytes(changed)):
            file.path.write_bytes(data)
            assert files(tmp_path).read("", b"digest") is None
            assert not file.path.exists()


@pytest.mark.parametrize("shape", [(4, 4), (3, 3), (0, 4), (1 << 31, 1 << 31)])
def test_a_file_of_another_shape_than_it_says_is_not_used(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    """Its checksum is right: something else has written it."""
    files(tmp_path).write("", b"digest", EMBEDDINGS)
    (file,) = segment_files(tmp_path)
    data = file.path.read_bytes()
    body = struct.pack("<II", *shape) + data[32:]
    file.path.write_bytes(data[:8] + xxhash.xxh3_128_digest(body) + body)
    assert files(tmp_path).read("", b"digest") is None
    assert not segment_files(tmp_path)


def test_the_files_count_against_the_budget_of_prefixes(tmp_path: Path) -> None:
    large: Embeddings = np.ones((128, 128), dtype=np.float32)
    few = files(tmp_path, most_bytes=4 * large.nbytes)
    for number in range(9):
        few.write("", bytes([number]), large)
    assert 0 < sum(file.size for file in segment_files(tmp_path)) <= 4 * large.nbytes
    assert [few.read("", bytes([number])) is None for number in (0, 4, 8)] == [True, True, False]
    sweep(tmp_path, most_bytes=-1, most_age=0.0)
    assert segment_files(tmp_path) == []


def test_a_folder_that_cannot_be_used_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    none = files(tmp_path / "file" / "folder")
    for _ in range(2):
        none.write("", b"digest", EMBEDDINGS)
        assert none.read("", b"digest") is None
    assert len(caplog.records) == 1
    assert "not kept on disk" in caplog.text


def test_no_image_waits_until_the_model_s_files_are_read(tmp_path: Path) -> None:
    known: list[bytes] = []
    waiting = files(tmp_path, lambda: known[0] if known else None)
    waiting.write("", b"digest", EMBEDDINGS)
    assert waiting.read("", b"digest") is None
    assert segment_files(tmp_path) == []
    known.append(b"f" * 16)
    waiting.write("", b"digest", EMBEDDINGS)
    assert waiting.read("", b"digest") is not None


def test_a_model_whose_files_changed_keeps_nothing_more(tmp_path: Path) -> None:
    def changed() -> bytes:
        raise OSError("the model has changed")

    changing = files(tmp_path, changed)
    changing.write("", b"digest", EMBEDDINGS)
    assert changing.read("", b"digest") is None
    assert segment_files(tmp_path) == []


def test_after_a_restart_only_what_is_new_of_a_picture_is_encoded(tmp_path: Path) -> None:
    first, second = Encoder(tiles=3), Encoder(tiles=3)
    encodings = Encodings(first.encode, first.tell)
    encodings.want(1, [piece(7, 0), piece(7, 1)])
    encodings.encode_next(files(tmp_path))
    restarted = Encodings(second.encode, second.tell)
    restarted.want(1, [piece(7, 0), piece(7, 1)])
    restarted.encode_next(files(tmp_path))
    assert second.done == []
    found = restarted.get(piece(7, 1))
    assert found is not None
    assert np.array_equal(found, encodings.get(piece(7, 1)))  # type: ignore[arg-type]
    restarted.want(2, [piece(7, 1), piece(7, 2)])
    restarted.encode_next(files(tmp_path))
    assert second.done == [(7, 2)]
    assert (encodings.encoded, restarted.encoded) == (2, 1)


def test_no_key_gets_an_image_sooner_since_another_one_sent_it(tmp_path: Path) -> None:
    encoder = Encoder()
    encodings = Encodings(encoder.encode, encoder.tell)
    for number, owner in enumerate(("alice", "bob")):
        encodings.want(number, [piece(7)], owner=owner)
        assert encodings.get(piece(7), owner=owner) is None
        encodings.encode_next(files(tmp_path))
        assert encodings.get(piece(7), owner=owner) is not None
    assert encoder.done == [(7, 0), (7, 0)]

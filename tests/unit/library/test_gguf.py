from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.core.worker_settings import WorkerSettings
from server.library.footprint import estimate_memory
from server.library.gguf import InvalidGguf, read_header
from server.library.header import GgufHeader, SkippedArray
from tests.unit.library.random_models import (
    EMBEDDING,
    LAYERS,
    TEMPLATE,
    VOCABULARY,
    header_bytes,
    string,
    write_model,
)

U32, STRING, ARRAY = 4, 8, 9


def reason(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(InvalidGguf) as caught:
        read_header(path)
    return str(caught.value)


def key(name: str, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + sizes + struct.pack("<IQ", kind, offset)


def test_the_facts_of_a_header_are_those_the_writer_put_in(tmp_path: Path) -> None:
    header = read_header(
        write_model(
            tmp_path / "m.gguf",
            general__name="Tiny",
            general__finetune="Instruct",
            general__license="MIT",
            general__tags=["chat", "text-generation"],
            general__base_model__count=1,
            general__base_model__0__name="Tinier",
            general__file_type=15,
            llama__attention__sliding_window=64,
            tokenizer__chat_template=TEMPLATE,
        )
    )
    assert header.architecture == "llama"
    assert (header.name, header.finetune, header.licence) == ("Tiny", "Instruct", "MIT")
    assert header.tags == ["chat", "text-generation"]
    assert header.base_models == ["Tinier"]
    assert header.quantization == "Q4_K_M"
    assert (header.context_length, header.block_count) == (256, LAYERS)
    assert (header.embedding_length, header.sliding_window) == (EMBEDDING, 64)
    assert header.layer_sizes("attention.head_count_kv") == [2] * LAYERS
    assert header.vocabulary == VOCABULARY
    assert header.chat_template == TEMPLATE
    assert header.split_count == 1


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q5_1", "BF16"])
def test_tensors_are_counted_and_measured(tmp_path: Path, kind: str) -> None:
    path = write_model(tmp_path / "m.gguf", tensor_type=gguf.GGMLQuantizationType[kind])
    tensors = read_header(path).tensors
    reference = gguf.GGUFReader(path).tensors
    assert tensors.count == LAYERS
    assert tensors.parameters == LAYERS * EMBEDDING * EMBEDDING
    assert tensors.data_bytes == sum(int(tensor.n_bytes) for tensor in reference)
    assert tensors.elements_by_type == {kind: tensors.parameters}


def test_without_a_file_type_the_most_frequent_tensor_type_is_the_quantisation(
    tmp_path: Path,
) -> None:
    path = write_model(tmp_path / "m.gguf", tensor_type=gguf.GGMLQuantizationType.Q8_0)
    assert read_header(path).quantization == "Q8_0"


def test_sizes_that_differ_by_layer_are_read_layer_by_layer(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", llama__feed_forward_length=[64, 128])
    assert read_header(path).layer_sizes("feed_forward_length") == [64, 128]


def test_values_of_a_wrong_type_are_as_if_absent(tmp_path: Path) -> None:
    header = read_header(
        write_model(
            tmp_path / "m.gguf",
            general__name=7,
            general__tags=3,
            general__file_type="seven",
            llama__attention__sliding_window="wide",
        )
    )
    assert header.name is None
    assert header.tags == []
    assert header.sliding_window is None
    assert header.quantization == "F32"


def test_long_arrays_are_not_kept(tmp_path: Path) -> None:
    header = read_header(write_model(tmp_path / "m.gguf", vocabulary=5000))
    tokens, scores = (header.metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores"))
    assert isinstance(tokens, SkippedArray)
    assert isinstance(scores, SkippedArray)
    assert (tokens.element, tokens.length) == ("string", 5000)
    assert (scores.element, scores.length) == ("f32", 5000)
    assert header.vocabulary == 5000


def test_a_large_vocabulary_costs_little_time_and_memory(tmp_path: Path) -> None:
    tokens = b"".join(string(f"token{index}") for index in range(262_144))
    array = struct.pack("<IQ", STRING, 262_144) + tokens
    path = tmp_path / "m.gguf"
    path.write_bytes(header_bytes(key("tokenizer.ggml.tokens", ARRAY, array)))
    start = time.process_time()
    assert read_header(path).vocabulary == 262_144
    assert time.process_time() - start < 0.2  # measured: 0.04 on a slow machine

    tracemalloc.start()
    read_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_strings_longer_than_a_chunk_are_skipped_in_an_array(tmp_path: Path) -> None:
    strings = [string("a" * 3_000_000), string("b")] * 2 + [string("c")] * 300
    array = struct.pack("<IQ", STRING, len(strings)) + b"".join(strings)
    path = tmp_path / "m.gguf"
    path.write_bytes(header_bytes(key("long", ARRAY, array), key("after", U32, b"\7\0\0\0")))
    assert read_header(path).integer("after") == 7


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    assert "empty" in reason(tmp_path / "m.gguf", b"")


@pytest.mark.parametrize("data", [b"P", b"PK\3\4 a zip archive", b"\0" * 100])
def test_another_format_is_called_not_gguf(tmp_path: Path, data: bytes) -> None:
    assert "not a GGUF file" in reason(tmp_path / "m.gguf", data)


@pytest.mark.parametrize("version", [0, 1, 4, 2**31 + 1])
def test_other_versions_are_refused(tmp_path: Path, version: int) -> None:
    assert "version" in reason(tmp_path / "m.gguf", header_bytes(version=version))


def test_a_big_endian_file_is_recognised(tmp_path: Path) -> None:
    data = b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
    assert "big-endian" in reason(tmp_path / "m.gguf", data)


@pytest.mark.parametrize("counts", [(0, 2**63), (2**63, 0), (2**64 - 1, 2**64 - 1), (0, 70_000)])
def test_huge_counts_are_refused(tmp_path: Path, counts: tuple[int, int]) -> None:
    assert "are accepted" in reason(tmp_path / "m.gguf", header_bytes(counts=counts))


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 1000])
def test_a_string_past_the_end_is_called_truncated(tmp_path: Path, length: int) -> None:
    data = header_bytes(struct.pack("<Q", length) + b"name")
    assert "truncated" in reason(tmp_path / "m.gguf", data)


@pytest.mark.parametrize("kind", [U32, STRING])
def test_an_array_past_the_end_is_called_truncated(tmp_path: Path, kind: int) -> None:
    data = header_bytes(key("array", ARRAY, struct.pack("<IQ", kind, 2**62)))
    assert "truncated" in reason(tmp_path / "m.gguf", data)


def test_an_array_of_arrays_is_refused(tmp_path: Path) -> None:
    data = header_bytes(key("array", ARRAY, struct.pack("<IQ", ARRAY, 1)))
    assert "unknown type 9" in reason(tmp_path / "m.gguf", data)


def test_an_unknown_value_type_is_refused(tmp_path: Path) -> None:
    assert "value type 77" in reason(tmp_path / "m.gguf", header_bytes(key("k", 77, b"")))


def test_a_key_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    twice = [key("k", U32, b"\1\0\0\0")] * 2
    assert "twice" in reason(tmp_path / "m.gguf", header_bytes(*twice))


@pytest.mark.parametrize("alignment", [0, 3, 48])
def test_an_alignment_that_is_no_power_of_two_is_refused(tmp_path: Path, alignment: int) -> None:
    data = header_bytes(key("general.alignment", U32, struct.pack("<I", alignment)))
    assert "alignment" in reason(tmp_path / "m.gguf", data)


def test_a_file_cut_in_its_tensor_data_is_called_truncated(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf")
    said = reason(path, path.read_bytes()[:-1])
    assert "truncated" in said
    assert "blk.1.attn_q.weight" in said


@pytest.mark.parametrize("offset", [2**63, 2**64 - 32, 4096])
def test_a_tensor_offset_past_the_end_is_called_truncated(tmp_path: Path, offset: int) -> None:
    data = header_bytes(tensors=tensor("t", (32,), offset=offset), counts=(1, 0))
    assert "truncated" in reason(tmp_path / "m.gguf", data + bytes(200))


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (tensor("t", (32,) * 5), "dimensions"),
        (tensor("t", (32,), kind=5), "unknown type 5"),
        (tensor("t", (33,), kind=12), "rows of 33"),
        (tensor("t", (2**40, 2**40)), "truncated"),
        (tensor("t", (8,), offset=1), "aligned"),
        (tensor("t" * 100, (8,)), "too long"),
    ],
)
def test_an_impossible_tensor_is_refused(tmp_path: Path, info: bytes, said: str) -> None:
    data = header_bytes(tensors=info, counts=(1, 0)) + bytes(1000)
    assert said in reason(tmp_path / "m.gguf", data)


def test_a_tensor_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    data = header_bytes(tensors=tensor("t", (8,)) * 2, counts=(2, 0)) + bytes(1000)
    assert "twice" in reason(tmp_path / "m.gguf", data)


def test_a_header_of_endless_text_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header_bytes(struct.pack("<Q", 8 << 30)))
    os.truncate(path, 9 << 30)  # sparse: it occupies almost no disk
    with pytest.raises(InvalidGguf, match="too long"):
        read_header(path)


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(InvalidGguf, match="regular file"):
        read_header(tmp_path / "m.gguf")


def test_layers_of_a_hostile_header_do_not_become_a_list(tmp_path: Path) -> None:
    keys = [
        key("general.architecture", STRING, string("x")),
        key("x.block_count", U32, b"\xff\xff\xff\xff"),
        key("x.attention.head_count", U32, b"\xff\xff\xff\xff"),
    ]
    path = tmp_path / "m.gguf"
    path.write_bytes(header_bytes(*keys))
    assert len(read_header(path).layer_sizes("attention.head_count") or []) <= 4096


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "m.gguf"
    return write_model(path, vocabulary=300, tokenizer__chat_template=TEMPLATE).read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "m.gguf"


def survives(path: Path, data: bytes) -> None:
    """Reading soon ends, with a reason or with a header whose every fact can be asked for."""
    path.write_bytes(data)
    start = time.process_time()
    try:
        header = read_header(path)
    except InvalidGguf as error:
        assert str(error)  # noqa: PT017
    else:
        facts = [name for name in dir(header) if isinstance(getattr(GgufHeader, name), property)]
        assert [getattr(header, name) for name in facts]
        assert estimate_memory(header, 2**40, WorkerSettings(parallel=256)) < 2**63
        assert msgspec.json.encode(header)
    assert time.process_time() - start < 5


fuzzing = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzzing
@given(data=st.data())
def test_no_cut_breaks_the_reader(scratch: Path, sound_file: bytes, data: st.DataObject) -> None:
    survives(scratch, sound_file[: data.draw(st.integers(0, len(sound_file)))])


@fuzzing
@given(flips=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=8))
def test_no_wrong_bytes_break_the_reader(
    scratch: Path, sound_file: bytes, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(sound_file)
    for place, value in flips:
        data[place % len(data)] = value
    survives(scratch, bytes(data))


@fuzzing
@given(
    place=st.integers(0, 6000),
    number=st.sampled_from([0, 1, 2**16, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]),
)
def test_no_huge_number_anywhere_breaks_the_reader(
    scratch: Path, sound_file: bytes, place: int, number: int
) -> None:
    place %= len(sound_file)
    survives(scratch, sound_file[:place] + struct.pack("<Q", number) + sound_file[place + 8 :])


@fuzzing
@given(tail=st.binary(max_size=300), counts=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_no_arbitrary_bytes_break_the_reader(
    scratch: Path, tail: bytes, counts: tuple[int, int]
) -> None:
    survives(scratch, header_bytes(tensors=tail, counts=counts))

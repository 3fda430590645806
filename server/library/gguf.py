"""Reads the header of a GGUF file without trusting it.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian):
magic, version, number of tensors, number of key-values, the key-values, one info per tensor, and
then, aligned, the tensors' data. The data is never read. Long arrays (vocabularies) are skipped,
and every count and offset is checked against the file's size before it is followed, so that a
hostile header costs neither time nor memory. The file is read, not mapped: a mapped file that
shrinks would kill the process.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from server.library.gguf_cursor import Cursor, InvalidGguf
from server.library.header import (
    Block,
    GgufHeader,
    SkippedArray,
    StoredTensor,
    TensorSummary,
    Value,
)
from server.library.quantization import TENSOR_TYPES

__all__ = ["InvalidGguf", "read_header", "read_tensors"]

# What a header may cost. Names and dimensions of tensors have ggml's limits (GGML_MAX_NAME,
# GGML_MAX_DIMS); the others are choices, far above what models need.
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 16
_MAX_KEY_BYTES = 1 << 16
_MAX_TENSOR_NAME_BYTES = 64
_MAX_DIMENSIONS = 4
_MAX_STRING_ARRAY = 1 << 22
_KEPT_NUMBERS = 4096
_KEPT_STRINGS = 256
_DEFAULT_ALIGNMENT = 32
_CLASSIFIER = {"cls.weight", "cls.output.weight"}
_IN_BLOCK = re.compile(r"blk\.(\d{1,6})\.(.+)")

_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS: dict[int, tuple[str, str, int]] = {
    0: ("u8", "B", 1),
    1: ("i8", "b", 1),
    2: ("u16", "H", 2),
    3: ("i16", "h", 2),
    4: ("u32", "I", 4),
    5: ("i32", "i", 4),
    6: ("f32", "f", 4),
    _BOOL: ("bool", "?", 1),
    10: ("u64", "Q", 8),
    11: ("i64", "q", 8),
    12: ("f64", "d", 8),
}


def read_header(path: Path) -> GgufHeader:
    """The header of the GGUF file at ``path``.

    Raises:
        InvalidGguf: it is empty, truncated, not GGUF, of another version or byte order, or broken.
        OSError: it cannot be opened or read.
    """
    with _opened(path) as file:
        cursor = Cursor(file, os.fstat(file.fileno()).st_size)
        version, tensor_count, key_count = _preamble(cursor)
        metadata = _metadata(cursor, key_count)
        tensors = _tensors(cursor, tensor_count, _alignment(metadata))
        return GgufHeader(
            version=version,
            file_bytes=cursor.size,
            metadata=metadata,
            tensors=_summary(tensors),
            eos_text=_eos_text(file, cursor.size, metadata),
        )


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Where the tensors of the GGUF file at ``path`` lie, by name.

    Raises:
        InvalidGguf, OSError: As `read_header` does.
    """
    with _opened(path) as file:
        cursor = Cursor(file, os.fstat(file.fileno()).st_size)
        _, tensor_count, key_count = _preamble(cursor)
        return _tensors(cursor, tensor_count, _alignment(_metadata(cursor, key_count)))


def _opened(path: Path) -> BinaryIO:
    # Opening a named pipe would wait for a writer that may never come.
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidGguf("not a regular file")
    return path.open("rb", buffering=0)


def _preamble(cursor: Cursor) -> tuple[int, int, int]:
    """Version, number of tensors, number of key-values."""
    if cursor.size == 0:
        raise InvalidGguf("the file is empty (0 bytes)")
    if cursor.size < 4 or (magic := cursor.take(4)) != b"GGUF":
        start = cursor.take(cursor.size) if cursor.size < 4 else magic
        raise InvalidGguf(f"not a GGUF file (it starts with {start!r})")
    version = cursor.u32()
    if version and version & 0xFFFF == 0:
        raise InvalidGguf("a big-endian GGUF file; only little-endian files are supported")
    if version not in {2, 3}:
        raise InvalidGguf(f"GGUF version {version} is not supported (2 and 3 are)")
    tensor_count, key_count = cursor.u64(), cursor.u64()
    for count, limit, what in (
        (tensor_count, _MAX_TENSORS, "tensors"),
        (key_count, _MAX_KEYS, "key-values"),
    ):
        if count > limit:
            raise InvalidGguf(f"claims {count} {what}; at most {limit} are accepted")
    return version, tensor_count, key_count


def _metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.text(_MAX_KEY_BYTES)
        if key in metadata:
            raise InvalidGguf(f"key {key!r} occurs twice")
        kind = cursor.u32()
        metadata[key] = _array(cursor, key) if kind == _ARRAY else _scalar(cursor, key, kind)
    return metadata


def _scalar(cursor: Cursor, key: str, kind: int) -> str | float | bool:
    if kind == _STRING:
        return cursor.text()
    if kind not in _NUMBERS:
        raise InvalidGguf(f"key {key!r} has the unknown value type {kind}")
    _, code, width = _NUMBERS[kind]
    value: float | bool = struct.unpack(f"<{code}", cursor.take(width))[0]
    return value


def _array(cursor: Cursor, key: str) -> list[str] | list[float] | SkippedArray:
    kind, length = cursor.u32(), cursor.u64()
    if kind != _STRING and kind not in _NUMBERS:
        raise InvalidGguf(f"key {key!r} is an array of the unknown type {kind}")
    width = 8 if kind == _STRING else _NUMBERS[kind][2]
    if length * width > cursor.remaining:
        raise InvalidGguf(f"truncated: key {key!r} claims an array of {length} elements")
    if kind == _STRING:
        if length <= _KEPT_STRINGS:
            return [cursor.text() for _ in range(length)]
        if length > _MAX_STRING_ARRAY:
            raise InvalidGguf(
                f"key {key!r} claims {length} strings; at most {_MAX_STRING_ARRAY} are accepted"
            )
        start = cursor.position
        cursor.skip_strings(length)
        return SkippedArray("string", length, start, cursor.position - start)
    name, code, _ = _NUMBERS[kind]
    if length <= _KEPT_NUMBERS:
        return list(struct.unpack(f"<{length}{code}", cursor.take(length * width)))
    skipped = SkippedArray(name, length, cursor.position, length * width)
    cursor.skip(length * width)
    return skipped


def _eos_text(file: BinaryIO, size: int, metadata: dict[str, Value]) -> str | None:
    """The text of the end-of-sequence token, for which the vocabulary is not kept."""
    token = metadata.get("tokenizer.ggml.eos_token_id")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(token, int) or not isinstance(tokens, list | SkippedArray):
        return None
    if isinstance(tokens, list):
        return str(tokens[token]) if 0 <= token < len(tokens) else None
    if tokens.element != "string" or not 0 <= token < tokens.length:
        return None
    file.seek(0)
    cursor = Cursor(file, size)
    cursor.skip(tokens.offset)
    cursor.skip_strings(token)
    return cursor.text()


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise InvalidGguf(f"general.alignment is {alignment!r}, not a power of two")
    return alignment


def _tensors(cursor: Cursor, count: int, alignment: int) -> dict[str, StoredTensor]:
    """The tensors by name, the data of each checked to lie inside the file."""
    tensors: dict[str, StoredTensor] = {}
    for _ in range(count):
        name, tensor = _tensor(cursor)
        if name in tensors:
            raise InvalidGguf(f"tensor {name!r} occurs twice")
        tensors[name] = tensor
    data_start = -(-cursor.position // alignment) * alignment
    for name, tensor in tensors.items():
        if tensor.offset % alignment:
            raise InvalidGguf(f"tensor {name!r} is not aligned to {alignment} bytes")
        tensors[name] = msgspec.structs.replace(tensor, offset=data_start + tensor.offset)
        end = data_start + tensor.offset + tensor.bytes
        if end > cursor.size:
            raise InvalidGguf(
                f"truncated: tensor {name!r} ends at byte {end}, "
                f"but the file has only {cursor.size}"
            )
    return tensors


def _summary(tensors: dict[str, StoredTensor]) -> TensorSummary:
    elements_by_type: dict[str, int] = {}
    for tensor in tensors.values():
        kind = TENSOR_TYPES[tensor.type].name
        elements_by_type[kind] = elements_by_type.get(kind, 0) + tensor.elements
    return TensorSummary(
        count=len(tensors),
        parameters=sum(elements_by_type.values()),
        data_bytes=sum(tensor.bytes for tensor in tensors.values()),
        elements_by_type=elements_by_type,
        classifies=not _CLASSIFIER.isdisjoint(tensors),
        last_block=_last_block(tensors),
    )


def _last_block(tensors: Iterable[str]) -> Block:
    blocks: dict[int, list[str]] = {-1: []}
    for found in filter(None, map(_IN_BLOCK.fullmatch, tensors)):
        blocks.setdefault(int(found[1]), []).append(found[2])
    last = max(blocks)
    return Block(last, blocks[last])


def _tensor(cursor: Cursor) -> tuple[str, StoredTensor]:
    """Name and place of a tensor; its offset counts from where the data begins."""
    name = cursor.text(_MAX_TENSOR_NAME_BYTES)
    dimensions = cursor.u32()
    if dimensions > _MAX_DIMENSIONS:
        raise InvalidGguf(f"tensor {name!r} claims {dimensions} dimensions")
    shape = [cursor.u64() for _ in range(dimensions)]
    number, offset = cursor.u32(), cursor.u64()
    if number not in TENSOR_TYPES:
        raise InvalidGguf(f"tensor {name!r} has the unknown type {number}")
    kind = TENSOR_TYPES[number]
    if shape and shape[0] % kind.block_elements:
        raise InvalidGguf(f"tensor {name!r} has rows of {shape[0]}, which {kind.name} cannot hold")
    elements = math.prod(shape)
    size = elements // kind.block_elements * kind.block_bytes
    return name, StoredTensor(number, shape, elements, size, offset)

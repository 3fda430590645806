"""LoRA files: their contents, and whether they fit a model, by llama.cpp's rules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from server.library.file_facts import FileFacts, file_facts
from server.library.gguf import InvalidGguf, read_tensors
from server.library.header import GgufHeader

_A, _B = ".lora_a", ".lora_b"
# Rows of this tensor are looked up, not multiplied: its two matrices change places.
_LOOKED_UP = "token_embd.weight"

Shape = list[int]
"""The size of each dimension, that of a row first."""


class LoraFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter changes: how many tensors, by matrices of which ranks, scaled by ``alpha``.

    One with ``invocation`` tokens is an activated one (aLoRA).
    """

    tensors: int
    ranks: list[int]
    alpha: float
    invocation: list[int]


class _Pair(NamedTuple):
    """The two matrices that change a tensor, as far as the file has them."""

    a: Shape | None
    b: Shape | None


def lora_facts(path: Path, header: GgufHeader) -> LoraFacts:
    """What the adapter at ``path`` says of itself. Raises InvalidGguf or OSError."""
    pairs = _pairs(*file_facts([path]))
    alpha = header.metadata.get("adapter.lora.alpha")
    invocation = header.metadata.get("adapter.alora.invocation_tokens")
    return LoraFacts(
        tensors=len(pairs),
        ranks=sorted({_matrix(pair.b)[0] for pair in pairs.values() if pair.b} - {0}),
        alpha=float(alpha) if isinstance(alpha, int | float) else 0.0,
        invocation=[
            token
            for token in (invocation if isinstance(invocation, list) else [])
            if isinstance(token, int)
        ],
    )


def misfit(adapter: Path, model: Sequence[Path]) -> str | None:
    """Why an adapter does not fit the model in the files ``model``, if their headers show that."""
    try:
        return _misfit(*file_facts([adapter]), tuple(file_facts(model)))
    except (InvalidGguf, OSError):
        return None  # the worker says what is wrong


@lru_cache(maxsize=1024)
def _misfit(adapter: FileFacts, model: tuple[FileFacts, ...]) -> str | None:
    targets: dict[str, Shape] = {}
    for file in model:
        targets |= _shapes(file)
    problems = (_problem(name, pair, targets) for name, pair in _pairs(adapter).items())
    return next(filter(None, problems), None)


def _problem(name: str, pair: _Pair, targets: dict[str, Shape]) -> str | None:
    """What llama.cpp would say against the two matrices for the tensor ``name``."""
    if name not in targets:
        return f"it changes the tensor {name!r}, which the model does not have"
    if pair.a is None or pair.b is None:
        return f"it has only one of the two matrices for the tensor {name!r}"
    (inputs, rank), (rank_b, outputs) = _matrix(pair.a), _matrix(pair.b)
    if name.endswith(_LOOKED_UP):
        inputs, outputs = outputs, rank
    elif rank != rank_b:
        return f"its two matrices for the tensor {name!r} differ in rank"
    if (inputs, outputs) != _matrix(targets[name]):
        return f"its matrices for the tensor {name!r} do not have the shape of the model's"
    return None


def _matrix(shape: Shape) -> tuple[int, int]:
    """The first two sizes; those that a file leaves out are 1."""
    first, second, *_ = [*shape, 1, 1]
    return first, second


def _pairs(file: FileFacts) -> dict[str, _Pair]:
    """The matrices of an adapter, by the tensors they change."""
    shapes = _shapes(file)
    names = dict.fromkeys(name[: -len(_A)] for name in shapes if name.endswith((_A, _B)))
    return {name: _Pair(shapes.get(name + _A), shapes.get(name + _B)) for name in names}


# Models are compared with each of their adapters in turn.
@lru_cache(maxsize=16)
def _shapes(file: FileFacts) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in read_tensors(file.path).items()}

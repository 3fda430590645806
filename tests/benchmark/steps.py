"""`python -m tests.benchmark.steps`: how long single steps take, by what lies in the KV cells.

Choices of the engine follow from these numbers: flash attention, the store for unused prefixes,
the size of prompt chunks. All shapes take turns, so that other load on the machine affects
each of them; the result is the median over several rounds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import numpy as np

from server.engine.batch import Batch
from server.engine.llama import ContextSettings, LlamaContext, LlamaModel
from server.worker.serve.hardware import physical_cores
from tests.benchmark.document import machine
from tests.e2e.server import INSTRUCT, MODELS

KvType = Literal["f16", "q8_0"]

_CELLS = 8192
_SEQUENCES = 64
_CHUNK = 512
_REPEATS = 9


class Shape(NamedTuple):
    """A step of ``streams`` with ``own`` cells each after ``shared``, and ``prompt`` tokens.

    No sequence of the step uses the ``idle`` cells.
    """

    streams: int
    own: int = 0
    shared: int = 0
    idle: int = 0
    prompt: int = 0

    def __str__(self) -> str:
        streams = "stream" if self.streams == 1 else "streams"
        parts = [f"{self.streams} {streams} of {self.own} tokens"] if self.streams else []
        parts += [f"{self.prompt} tokens of a prompt"] if self.prompt else []
        parts += [f"behind {self.shared} shared ones"] if self.shared else []
        parts += [f"beside {self.idle} idle cells"] if self.idle else []
        return " ".join(parts)


_SHAPES = (
    Shape(1, own=140),
    Shape(4, own=140),
    Shape(8, own=140),
    Shape(16, own=140),
    Shape(16, own=20, shared=1100),
    Shape(16, own=140, idle=2048),
    Shape(16, own=140, idle=5120),
    Shape(0, prompt=16),
    Shape(0, prompt=48),
    Shape(0, prompt=256),
    Shape(0, prompt=256, idle=2048),
    Shape(0, prompt=256, idle=5120),
)
_SHAPES_BY_CELLS = (
    Shape(1, own=1024),
    Shape(1, own=4096),
    Shape(4, own=1024),
    Shape(16, own=140),
    Shape(16, own=20, shared=1100),
    Shape(0, prompt=32),
    Shape(0, prompt=256),
    Shape(0, shared=1024, prompt=128),
)


class Cells:
    """A context laid out for one shape."""

    def __init__(
        self, model: LlamaModel, shape: Shape, *, flash_attention: bool, kv_type: KvType
    ) -> None:
        settings = ContextSettings(
            kv_cells=_CELLS,
            sequence_ids=_SEQUENCES,
            batch_size=_CHUNK,
            ubatch_size=_CHUNK,
            outputs_per_batch=_SEQUENCES,
            threads=physical_cores(),
            flash_attention="on" if flash_attention else "off",
            kv_type=kv_type,
        )
        self._shape = shape
        self._context = LlamaContext(model, settings)
        self._batch = Batch(_CHUNK)
        self._random = np.random.default_rng(0)
        self._lengths = [0] * _SEQUENCES
        for idle in range(shape.idle // _CHUNK):
            self._compute([(_SEQUENCES - 1 - idle, _CHUNK)])
        first, *others = range(max(1, shape.streams))
        for done in range(0, shape.shared, _CHUNK):
            self._compute([(first, min(_CHUNK, shape.shared - done))])
        for other in others if shape.shared else ():
            self._context.copy_sequence(first, other, shape.shared)
            self._lengths[other] = shape.shared
        for stream in range(shape.streams):
            for done in range(0, shape.own, _CHUNK):
                self._compute([(stream, min(_CHUNK, shape.own - done))])

    def step(self) -> float:
        """Seconds of one step of the shape."""
        work = [(stream, 1) for stream in range(self._shape.streams)]
        if self._shape.prompt:
            self._context.truncate_sequence(0, self._shape.shared)
            self._lengths[0] = self._shape.shared
            work.append((0, self._shape.prompt))
        return self._compute(work)

    def _compute(self, work: list[tuple[int, int]]) -> float:
        self._batch.clear()
        for sequence, count in work:
            tokens = self._random.integers(1000, 20_000, count).astype(np.int32)
            self._batch.add(sequence, tokens, self._lengths[sequence], count - 1)
            self._lengths[sequence] += count
        started = time.perf_counter()
        self._context.decode(self._batch)
        self._context.logits(1)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODELS / f"{INSTRUCT}.gguf")
    parser.add_argument(
        "--kv-types", nargs="+", choices=("f16", "q8_0"), help="compare types of cells instead"
    )
    parser.add_argument("--repeats", type=int, default=_REPEATS)
    parser.add_argument("--safe-mode", action="store_true", help="as the worker's safe mode")
    options = parser.parse_args()
    model = LlamaModel(str(options.model), safe_mode=options.safe_mode)
    print(f"{options.model.stem}, {machine()}\n")
    shapes: tuple[Shape, ...]
    columns: dict[str, tuple[bool, KvType]]
    if options.kv_types:
        shapes, columns = _SHAPES_BY_CELLS, {name: (True, name) for name in options.kv_types}
    else:
        shapes, columns = _SHAPES, {"flash attention": (True, "f16"), "without": (False, "f16")}
    print("| step |" + "".join(f" {name}, ms |" for name in columns))
    print("|---|" + "---:|" * len(columns))
    rows = [
        [
            Cells(model, shape, flash_attention=flash, kv_type=kv_type)
            for flash, kv_type in columns.values()
        ]
        for shape in shapes
    ]
    rounds = [[[cells.step() for cells in row] for row in rows] for _ in range(options.repeats)]
    for shape, times in zip(shapes, zip(*rounds, strict=True), strict=True):
        medians = [median(column) * 1000 for column in zip(*times, strict=True)]
        print(f"| {shape} |" + "".join(f" {typical:.1f} |" for typical in medians))


if __name__ == "__main__":
    main()

"""`python -m tests.benchmark.builds FOLDER`: single steps of two builds of llama.cpp, in turns.

One is the installed build. The other was installed into FOLDER, for example llama-cpp-python
without our kernels: `pip install --no-deps --no-cache-dir --target FOLDER llama-cpp-python`.

Each build runs in its own process and they take turns, so that other load on the machine affects
both. The reported ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from server.engine.llama import LlamaModel
from tests.benchmark.document import machine
from tests.benchmark.steps import Cells, Shape
from tests.e2e.server import INSTRUCT, MODELS

_SHAPES = (
    Shape(1, own=140),
    Shape(2, own=140),
    Shape(4, own=140),
    Shape(8, own=140),
    Shape(16, own=140),
    Shape(1, own=20, shared=2000),
    Shape(16, own=20, shared=1100),
    Shape(0, prompt=48),
    Shape(0, prompt=256),
)
_REPEATS = 15
_STEPS_PER_TURN = 3


def _measure(model_path: Path) -> None:
    """For each line of standard input, print the seconds of a step of each shape."""
    model = LlamaModel(str(model_path), safe_mode=True)
    cells = [Cells(model, shape, flash_attention=True, kv_type="f16") for shape in _SHAPES]
    for _ in sys.stdin:
        print(json.dumps([median(c.step() for _ in range(_STEPS_PER_TURN)) for c in cells]))
        sys.stdout.flush()


class _Build:
    """A process that measures with the llama.cpp of ``folder``, or with the installed one."""

    def __init__(self, model_path: Path, folder: Path | None) -> None:
        environment = os.environ | ({} if folder is None else {"PYTHONPATH": str(folder)})
        command = [sys.executable, "-m", "tests.benchmark.builds", "--measure", str(model_path)]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def turn(self) -> list[float]:
        """Seconds of a step of each shape."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds: list[float] = json.loads(self._process.stdout.readline())
        return seconds

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where the other build is installed")
    parser.add_argument("--model", type=Path, default=MODELS / f"{INSTRUCT}.gguf")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        _measure(options.measure)
        return
    if options.folder is None:
        parser.error("which other build?")
    builds = [_Build(options.model, None), _Build(options.model, options.folder)]
    try:
        rounds = [[build.turn() for build in builds] for _ in range(_REPEATS)]
    finally:
        for build in builds:
            build.end()
    print(f"{options.model.stem}, {machine()}\n")
    print("| step | installed, ms | other, ms | ratio |\n|---|---:|---:|---:|")
    for shape, times in zip(
        _SHAPES, zip(*(zip(*turns, strict=True) for turns in rounds), strict=True), strict=True
    ):
        installed, other = (median(column) * 1000 for column in zip(*times, strict=True))
        ratio = median(ours / theirs for ours, theirs in times)
        print(f"| {shape} | {installed:.1f} | {other:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()

"""Matrix products of every format of weights, by the number of tokens.

    python -m tests.benchmark.products [FORMAT ...]

A line has billions of products a second, by the CPU time of one thread or the time of several.
``--rows 196608`` makes matrices that no cache holds. For another build of llama-cpp-python, put its
folder first on the path: PYTHONPATH=FOLDER.
"""

from __future__ import annotations

import argparse
from ctypes import c_void_p

import numpy as np
from gguf import GGMLQuantizationType

from tests.benchmark.least_time import least_seconds
from tests.unit.engine.ggml import Graph, call, quantize

FORMATS = [
    "F32",
    "F16",
    "BF16",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "IQ4_NL",
    "MXFP4",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_XS",
]
LEAST_ROWS, COLUMNS = 3072, 1024
TOKENS = [1, 2, 4, 16, 128]


def seconds(kind: GGMLQuantizationType, tokens: int, shape: tuple[int, int], threads: int) -> float:
    """Seconds of one product of ``tokens`` rows with random weights, the minimum of many."""
    rows, columns = shape
    rng = np.random.default_rng(0)
    some = quantize(rng.normal(size=(LEAST_ROWS, columns)).astype(np.float32), kind)
    weights = np.tile(some, (rows // LEAST_ROWS, 1))
    activations = rng.normal(size=(tokens, columns)).astype(np.float32)
    graph = Graph(threads=threads)
    matrix = graph.tensor(kind, shape, weights)
    vectors = graph.tensor(GGMLQuantizationType.F32, activations.shape, activations)
    product = c_void_p(call("ggml_mul_mat", c_void_p, graph.context, matrix, vectors))
    with graph.built(product) as run:
        times = 400 * LEAST_ROWS * COLUMNS // (tokens * rows * columns)
        return least_seconds(run, max(8, times), threads)


def main() -> None:
    """Print a line for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", default=FORMATS, metavar="FORMAT")
    parser.add_argument("--rows", type=int, default=LEAST_ROWS, help=f"a multiple of {LEAST_ROWS}")
    parser.add_argument("--columns", type=int, default=COLUMNS, help="a multiple of 256")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    shape = options.rows, options.columns
    for name in options.formats:
        kind = GGMLQuantizationType[name]
        speeds = [
            shape[0] * shape[1] * tokens / seconds(kind, tokens, shape, options.threads) / 1e9
            for tokens in options.tokens
        ]
        cells = (
            f"{n} tokens {speed:6.1f}" for n, speed in zip(options.tokens, speeds, strict=True)
        )
        print(f"{name:8}", *cells, flush=True)


if __name__ == "__main__":
    main()

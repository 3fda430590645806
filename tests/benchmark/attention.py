"""Attention over cells of each format and heads of each size: CPU time of one thread.

    python -m tests.benchmark.attention [--cells N ...] [--tokens N ...]

A line has microseconds of one operation, the minimum of many: 9 heads, 3 KV heads, and the last
tokens of a text that fills the cells, each of which sees those before it. For another build of
llama-cpp-python, put its folder first on the path: PYTHONPATH=FOLDER.
"""

from __future__ import annotations

import argparse
from itertools import product

from gguf import GGMLQuantizationType

from tests.benchmark.least_time import least_seconds
from tests.unit.engine.ggml import Graph
from tests.unit.engine.test_attention_kernel import Heads, causal

FORMATS = [GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0]
HEAD_DIMS = [64, 128, 256]
CELLS = [1024, 4096, 12_032]
TOKENS = [1, 16, 128, 400]


def seconds(kind: GGMLQuantizationType, head_dim: int, cells: int, tokens: int) -> float:
    """CPU seconds of one operation."""
    heads = Heads.random(causal(tokens, cells), heads=9, kv_heads=3, head_dim=head_dim)
    graph = Graph(threads=1)
    with graph.built(heads.attention(graph, kind)) as run:
        return least_seconds(run, max(4, min(200, 10_000_000 // (tokens * cells))))


def main() -> None:
    """Print a line for each format, head size and number of cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", nargs="+", type=int, default=CELLS, metavar="N")
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS, metavar="N")
    arguments = parser.parse_args()
    for kind, head_dim, cells in product(FORMATS, HEAD_DIMS, arguments.cells):
        times = (
            f"{tokens} tokens {seconds(kind, head_dim, cells, tokens) * 1e6:9.0f}"
            for tokens in arguments.tokens
        )
        print(f"{kind.name:4} {head_dim:3} {cells:6} cells", *times, flush=True)


if __name__ == "__main__":
    main()

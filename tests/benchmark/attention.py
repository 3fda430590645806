"""Attention over cells of each format, by the number of heads, cells and tokens.

    python -m tests.benchmark.attention [--cells N ...] [--tokens N ...] [--heads N/N/N ...]

A line has microseconds of one operation, the minimum of many, by the CPU time of one thread or the
time of several. The tokens are the last of a text that fills the cells, each of which sees those
before it. With ``--from-memory`` more cells than caches hold take turns. For another build of
llama-cpp-python, put its folder first on the path: PYTHONPATH=FOLDER.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from itertools import cycle, product

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from tests.benchmark.least_time import least_seconds
from tests.unit.engine.ggml import Graph
from tests.unit.engine.test_attention_kernel import Heads, causal

FORMATS = [GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0]
HEADS = ["9/3/64", "9/3/128", "9/3/256"]
CELLS = [1024, 4096, 12_032]
TOKENS = [1, 16, 128, 400]
# Of keys and values together, which no cache holds.
_BYTES_FROM_MEMORY = 200_000_000


def seconds(
    kind: GGMLQuantizationType,
    shape: tuple[int, int, int],
    cells: int,
    tokens: int,
    *,
    threads: int,
    from_memory: bool,
) -> float:
    """Seconds of one operation; ``shape`` is heads, KV heads and numbers of a head."""
    heads, kv_heads, head_dim = shape
    numbers, block_bytes = GGML_QUANT_SIZES[kind]
    bytes_of_cells = 2 * cells * kv_heads * head_dim // numbers * block_bytes
    copies = _BYTES_FROM_MEMORY // bytes_of_cells + 1 if from_memory else 1
    inputs = Heads.random(causal(tokens, cells), heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    with ExitStack() as stack:
        runs = []
        for _ in range(copies):
            graph = Graph(threads)
            runs.append(stack.enter_context(graph.built(inputs.attention(graph, kind))))
        turns = cycle(runs)

        def run() -> None:
            next(turns)()

        times = max(4, min(200, 10_000_000 // (tokens * cells)))
        return least_seconds(run, max(times, copies), threads)


def main() -> None:
    """Print a line for each format, shape of heads and number of cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", nargs="+", type=int, default=CELLS, metavar="N")
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS, metavar="N")
    parser.add_argument(
        "--heads", nargs="+", default=HEADS, metavar="N", help="HEADS/KV_HEADS/NUMBERS"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--from-memory", action="store_true")
    arguments = parser.parse_args()
    how = {"threads": arguments.threads, "from_memory": arguments.from_memory}
    for kind, heads, cells in product(FORMATS, arguments.heads, arguments.cells):
        numbers = [int(number) for number in heads.split("/")]
        shape = numbers[0], numbers[1], numbers[2]
        times = (
            f"{tokens} tokens {seconds(kind, shape, cells, tokens, **how) * 1e6:9.0f}"
            for tokens in arguments.tokens
        )
        print(f"{kind.name:4} {heads:9} {cells:6} cells", *times, flush=True)


if __name__ == "__main__":
    main()

"""What adapters cost: `python -m tests.benchmark.adapters`.

Tokens per second of four streams of the instruct model: without adapters, all with the same one,
and with several kinds side by side, which take turns since a step has adapters of one kind. The
adapters are random, of rank 16 for every matrix of every layer. Medians of rounds, and their
ratios to none.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import gguf
import httpx
import numpy as np

from tests.e2e.server import INSTRUCT, MODELS, running_server
from tests.tiny_adapters import Matrices, write_tiny_adapter

_RANK = 16
# Small, so that answers stay answers.
_STRENGTH = 0.001
_MIXES: dict[str, Sequence[str]] = {
    "no adapter": [INSTRUCT] * 4,
    "one adapter": [f"{INSTRUCT}:a"] * 4,
    "an adapter beside none": [INSTRUCT, f"{INSTRUCT}:a"] * 2,
    "three adapters and none": [INSTRUCT, *(f"{INSTRUCT}:{name}" for name in "abc")],
}


def matrices(model: Path, seed: int) -> Matrices:
    """Random factors for every matrix of the layers of ``model``."""
    chance = np.random.default_rng(seed)
    found: Matrices = {}
    for tensor in gguf.GGUFReader(model).tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            inputs, outputs = map(int, tensor.shape)
            a = chance.normal(scale=_STRENGTH, size=(_RANK, inputs))
            b = chance.normal(size=(outputs, _RANK))
            found[tensor.name] = a.astype(np.float32), b.astype(np.float32)
    return found


def answer(url: str, tokens: int, model: str) -> None:
    """Let ``model`` write so many tokens."""
    body = {
        "model": model,
        "prompt": "Once upon a time",
        "max_tokens": tokens,
        "temperature": 1,
        "seed": 1,  # without drafts, which some of the answers would allow and others not
        "ignore_eos": True,
    }
    response = httpx.post(f"{url}/v1/completions", json=body, timeout=600).raise_for_status()
    assert response.json()["usage"]["completion_tokens"] == tokens


def rate(url: str, models: Sequence[str], tokens: int) -> float:
    """Tokens per second of one stream for each of ``models``, together."""
    began = time.perf_counter()
    with ThreadPoolExecutor(len(models)) as pool:
        list(pool.map(partial(answer, url, tokens), models))
    return len(models) * tokens / (time.perf_counter() - began)


def measure(rounds: int, tokens: int) -> None:
    """Print the median rate of each mix, and its ratio to that without adapters."""
    with TemporaryDirectory() as name:
        model = Path(name) / f"{INSTRUCT}.gguf"
        model.symlink_to((MODELS / model.name).resolve())
        for seed, adapter in enumerate("abc"):
            file = model.with_name(f"{INSTRUCT}-{adapter}.gguf")
            write_tiny_adapter(file, of=matrices(model, seed))
        with running_server("--models-dir", name, "--ctx-size", "2048") as server:
            for mix in _MIXES.values():
                rate(server.url, mix, 4)
            measured = [
                {title: rate(server.url, mix, tokens) for title, mix in _MIXES.items()}
                for _ in range(rounds)
            ]
    alone = median(each["no adapter"] for each in measured)
    for title in _MIXES:
        found = median(each[title] for each in measured)
        print(f"{title:26} {found:8.1f} tokens/s  ratio {found / alone:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.adapters", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--tokens", type=int, default=100, help="of each stream (default: 100)")
    options = parser.parse_args()
    measure(options.rounds, options.tokens)


if __name__ == "__main__":
    main()

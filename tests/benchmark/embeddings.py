"""Embeddings beside llama-server: `python -m tests.benchmark.embeddings`.

Rows per second of all-MiniLM-L6-v2 (from its package, tests/encoder.txt; float32) at 64 texts a
request, for texts of some length each. The servers take turns, in rounds; medians are compared.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from server.core.settings import load
from tests.benchmark import peer
from tests.e2e.server import running_server
from tests.real_encoder import RealEncoder

_ROWS = 64
_WORDS = {"short (8 words)": 8, "passages (100 words)": 100}
_VOCABULARY = [
    "river",
    "stone",
    "winter",
    "letter",
    "engine",
    "garden",
    "silver",
    "mountain",
    "question",
    "answer",
    "market",
    "bridge",
    "paper",
    "window",
    "morning",
    "history",
    "teacher",
    "doctor",
    "island",
    "music",
    "number",
    "colour",
    "table",
    "water",
]


def texts(words: int, seed: int) -> list[str]:
    """The texts of a request, of about so many words each, which no other request has."""
    chance = random.Random(seed)
    lengths = [chance.randint(words // 2, 3 * words // 2) for _ in range(_ROWS)]
    return [" ".join(chance.choices(_VOCABULARY, k=length)) for length in lengths]


def rows_per_second(url: str, model: str, words: int, requests: int, seed: int) -> float:
    """The rate of requests one after the other."""
    inputs = [texts(words, seed + number) for number in range(requests)]
    with httpx.Client(timeout=300) as http:
        began = time.perf_counter()
        for each in inputs:
            answer = http.post(f"{url}/v1/embeddings", json={"model": model, "input": each})
            assert len(answer.raise_for_status().json()["data"]) == _ROWS
        return requests * _ROWS / (time.perf_counter() - began)


def compare(binary: Path, rounds: int, requests: int) -> None:
    """Print the median rates of both servers and how they compare."""
    with TemporaryDirectory() as name:
        model = Path(name) / "encoder.gguf"
        RealEncoder().write(model)
        # A request of 64 texts is spread over its slots.
        sizes = ("--embeddings", "-c", "8192", "-b", "2048", "-ub", "2048", "-np", "16")
        with (
            running_server("--models-dir", name) as ours,
            peer.serving(binary, model, *sizes) as theirs,
        ):
            urls = {"dragoman": ours.url, "llama-server": theirs}
            for url in urls.values():
                rows_per_second(url, model.stem, 8, 1, seed=0)
            for title, words in _WORDS.items():
                rates = [
                    [
                        rows_per_second(url, model.stem, words, requests, seed=1000 * number)
                        for url in urls.values()
                    ]
                    for number in range(1, rounds + 1)
                ]
                mine, other = (median(each) for each in zip(*rates, strict=True))
                print(
                    f"{title:24} {mine:8.1f} rows/s  llama-server {other:8.1f} rows/s  "
                    f"ratio {mine / other:.2f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark.embeddings", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each server (default: 5)")
    parser.add_argument("--requests", type=int, default=4, help="of a round (default: 4)")
    parser.add_argument("--llama-server", type=Path, help="its path (default: it is built)")
    options = parser.parse_args()
    binary = options.llama_server or peer.install(load().cache_dir)
    compare(binary, options.rounds, options.requests)


if __name__ == "__main__":
    main()

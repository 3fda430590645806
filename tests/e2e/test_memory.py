"""The memory that is stated for a model, against what its worker holds at most."""

from __future__ import annotations

import random
import re

import httpx
import pytest

from tests.e2e.server import BASE, INSTRUCT, MODELS, running_server

WORDS = ["river", "stone", "lamp", "green", "seven", "paper", "horse", "cloud", "salt", "music"]


def metric(text: str, name: str) -> float:
    (value,) = re.findall(rf"^{name}\{{.*\}} (\S+)$", text, flags=re.MULTILINE)
    return float(value)


@pytest.mark.parametrize("model", [INSTRUCT, BASE])
def test_a_model_never_takes_more_memory_than_is_reserved_for_it(model: str) -> None:
    cells = 1024
    chance = random.Random(1)
    sizes = ["--ctx-size", str(cells), "--kv-tokens", str(cells)]
    with running_server(*sizes, str(MODELS / f"{model}.gguf")) as server:
        with server.client() as client:
            # Other texts each time fill the cells, and then the store of prefixes.
            for _ in range(6):
                prompt = " ".join(chance.choices(WORDS, k=cells * 3 // 4))
                client.completions.create(model=model, prompt=prompt, max_tokens=2)
        told = httpx.get(f"{server.url}/metrics").text
    assert metric(told, "dragoman_engine_kv_cells") == cells
    reserved = metric(told, "dragoman_model_memory_bytes")
    resident = metric(told, "dragoman_worker_resident_memory_bytes")
    assert reserved / 2 < resident <= reserved

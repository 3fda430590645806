"""What a draft model or a model's own head gains: `python -m tests.benchmark.drafts`.

The instruct model drafts for one that says the same and takes several times as long: itself with
further layers that add nothing. So nearly all guesses are right, and what is left of the gain is
what drafting costs. For comparison it also drafts for itself, which must cost nothing: drafts do
not pay there, and are not made. `headed` is a mixture of experts whose own head (MTP), one layer of
12, guesses right; the head of `misled` guesses wrong. They are compared with files without a head.
Seconds per token of one greedy stream; medians of rounds, and their ratios to those without drafts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from shutil import copyfile
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import httpx
import numpy as np

from tests.e2e.server import INSTRUCT, MODELS, running_server
from tests.tiny_heads import write_model_with_head

_QUESTIONS = (
    "Tell a story about a river.",
    "Explain how a bicycle works, in detail.",
    "List ten uses of a brick and explain each.",
)
_ADDING = ("attn_output.weight", "ffn_down.weight")


def write_deep_model(path: Path, model: Path, times: int) -> None:
    """Write ``model`` with ``times`` as many layers to ``path``; the further ones add nothing."""
    reader = gguf.GGUFReader(model)
    (layers,) = reader.fields["llama.block_count"].parts[-1].tolist()
    writer: Any = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = layers * times if field.name == "llama.block_count" else field.contents()
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        if not tensor.name.startswith("blk."):
            continue
        _, layer, name = tensor.name.split(".", 2)
        data = np.zeros_like(tensor.data) if name in _ADDING else tensor.data
        for copy in range(1, times):
            further = f"blk.{int(layer) + copy * layers}.{name}"
            writer.add_tensor(further, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def seconds_per_token(url: str, model: str, question: str, tokens: int) -> float:
    """The time of a greedy answer, its prompt included."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    began = time.perf_counter()
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=600).raise_for_status()
    return (time.perf_counter() - began) / tokens


def measure(times: int, rounds: int, tokens: int) -> None:
    """Print the median time per token with and without a draft model or a head."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        small = (MODELS / f"{INSTRUCT}.gguf").resolve()
        (folder / "small.gguf").symlink_to(small)
        copyfile(small, folder / "small-drafted.gguf")  # a link would be the model itself
        write_deep_model(folder / "deep.gguf", small, times)
        (folder / "deep-drafted.gguf").symlink_to(folder / "deep.gguf")
        for model in ("small-drafted", "deep-drafted"):
            (folder / f"{model}.toml").write_text('draft = "small.gguf"\n')
        for model, sure in (("headed", True), ("misled", False)):
            for suffix, missing in (("", "eh_proj"), ("-drafted", None)):
                path = folder / f"{model}{suffix}.gguf"
                write_model_with_head(path, sure=sure, without=missing, width=1024, layers=12)
        # Looking up would draft what repeats itself on either side.
        options = ("--models-dir", name, "--ctx-size", "2048", "--no-prompt-lookup")
        with running_server(*options) as server:
            for model in ("small", "deep", "headed", "misled"):
                for each in (model, f"{model}-drafted"):
                    seconds_per_token(server.url, each, "Hello.", tokens)
                plain, drafted = [], []
                for number in range(rounds):
                    for question in _QUESTIONS:
                        asked = f"{question} ({number})"
                        plain.append(seconds_per_token(server.url, model, asked, tokens))
                        drafted.append(
                            seconds_per_token(server.url, f"{model}-drafted", asked, tokens)
                        )
                without, with_drafts = 1000 * median(plain), 1000 * median(drafted)
                print(
                    f"{model:6} {without:7.1f} ms/token alone  {with_drafts:7.1f} with drafts  "
                    f"ratio {with_drafts / without:.2f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.drafts", description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="the layers (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--tokens", type=int, default=120, help="of each answer (default: 120)")
    options = parser.parse_args()
    measure(options.times, options.rounds, options.tokens)


if __name__ == "__main__":
    main()

"""`python -m tests.benchmark.perplexity FOLDER`: how well two builds of llama.cpp predict a text.

One is the installed build. The other was installed into FOLDER, for example llama-cpp-python
without our kernels: `pip install --no-deps --no-cache-dir --target FOLDER llama-cpp-python`.

Both round activations, each in its own way. What they come near to is computed too, by the other
build: the same weights in single precision, with plain attention over cells in single precision.
The text is this project's documentation. Each window is read by itself, from the token on that the
model wants before a text.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from server.engine.batch import Batch
from server.engine.llama import ContextSettings, LlamaContext, LlamaModel
from server.worker.serve.hardware import physical_cores
from tests.benchmark.document import machine
from tests.e2e.server import BASE, INSTRUCT, MODELS

_WINDOW = 512
# Logits of so many tokens take 134 MB with Gemma's vocabulary.
_TOGETHER = 128
_DOCUMENTATION = Path(__file__).parents[2] / "docs"

Logprobs = NDArray[np.float64]
"""The log probability of each predicted token."""


def _measure(path: Path, windows: int, *, single_precision: bool) -> list[float]:
    model = LlamaModel(str(path), safe_mode=True)
    pages = sorted(_DOCUMENTATION.glob("*.md"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    tokens = np.asarray(model.vocabulary.tokenize(text, parse_special=False), np.int32)
    before = model.vocabulary.tokenize("", parse_special=False, add_special=True)[:1]
    length = _WINDOW - len(before)
    if len(tokens) < windows * length:
        raise SystemExit(f"the text has only {len(tokens)} tokens")
    context = LlamaContext(
        model,
        ContextSettings(
            kv_cells=_WINDOW,
            sequence_ids=1,
            batch_size=_TOGETHER,
            ubatch_size=_TOGETHER,
            outputs_per_batch=_TOGETHER,
            threads=physical_cores(),
            flash_attention="off" if single_precision else "on",
            kv_type="f32" if single_precision else "f16",
        ),
    )
    logprobs: list[float] = []
    for part in tokens[: windows * length].reshape(windows, length):
        window = np.concatenate([np.asarray(before, np.int32), part])
        context.clear()
        for start in range(0, _WINDOW, _TOGETHER):
            batch = Batch(_TOGETHER)
            batch.add(0, window[start : start + _TOGETHER], start, 0)
            context.decode(batch)
            following = window[start + 1 : start + 1 + _TOGETHER]
            logits = context.logits(_TOGETHER)
            logprobs += [
                _logprob(row, token) for row, token in zip(logits, following, strict=False)
            ]
    return logprobs


def _logprob(logits: NDArray[np.float32], token: int) -> float:
    shifted = logits - logits.max()
    return float(shifted[token] - np.log(np.exp(shifted).sum(dtype=np.float64)))


def _measured(path: Path, windows: int, folder: Path | None, *options: str) -> Logprobs:
    """What the llama.cpp of ``folder``, or the installed one, says in a process of its own."""
    environment = os.environ | ({} if folder is None else {"PYTHONPATH": str(folder)})
    command = [sys.executable, "-m", "tests.benchmark.perplexity", "--measure", str(path)]
    command += ["--windows", str(windows), *options]
    output = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    ).stdout
    return np.asarray(json.loads(output))


def _write_in_single_precision(source: Path, target: Path) -> None:
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32
    options.allow_requantize = True
    paths = str(source).encode(), str(target).encode()
    if llama_cpp.llama_model_quantize(*paths, ctypes.byref(options)) != 0:
        raise SystemExit(f"{source} cannot be written in single precision")


def _compare(path: Path, windows: int, other: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        exact_path = Path(folder, "f32.gguf")
        _write_in_single_precision(path, exact_path)
        exact = _measured(exact_path, windows, other, "--single-precision")
    print(f"\n{path.stem}, {len(exact)} tokens\n")
    print("| build | perplexity | to exact | log probabilities off by, RMS |")
    print("|---|---:|---:|---:|")
    measured = {
        "installed": _measured(path, windows, None),
        "other": _measured(path, windows, other),
        "exact": exact,
    }
    for name, logprobs in measured.items():
        perplexity, ratio = np.exp(-logprobs.mean()), np.exp(exact.mean() - logprobs.mean())
        off = np.sqrt(np.square(logprobs - exact).mean())
        print(f"| {name} | {perplexity:.4f} | {ratio - 1:+.3%} | {off:.4f} |", flush=True)


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where the other build is installed")
    parser.add_argument("--windows", type=int, default=40, help=f"of {_WINDOW} tokens")
    parser.add_argument("--model", type=Path, action="append", help="a GGUF file")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--single-precision", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        single = options.single_precision
        print(json.dumps(_measure(options.measure, options.windows, single_precision=single)))
        return
    if options.folder is None:
        parser.error("which other build?")
    print(machine())
    for path in options.model or [MODELS / f"{name}.gguf" for name in (INSTRUCT, BASE)]:
        _compare(path, options.windows, options.folder)


if __name__ == "__main__":
    main()

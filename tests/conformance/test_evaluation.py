"""lm-eval over HTTP gets the same log probabilities as llama.cpp by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.conftest import RunClient, run_direct
from tests.conformance.questions import QUESTIONS, description
from tests.e2e.server import BASE, INSTRUCT, MODELS, Server

# More than OpenAI's four; lm-eval adds the text of EOS.
UNTIL = ["\n", ".", ",", "Question:", "Q:", "</s>"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", [INSTRUCT, BASE])
def test_lm_eval_measures_what_llama_cpp_gives(
    server: Server, run_client: RunClient, model: str, tmp_path: Path
) -> None:
    tokenizer, questions = tmp_path / "tokenizer", tmp_path / "questions.jsonl"
    direct: list[list[float]] = run_direct("questions", MODELS / f"{model}.gguf", tokenizer)
    questions.write_text("".join(json.dumps(description(q)) + "\n" for q in QUESTIONS))
    measured = run_client("evaluate.py", server.url, model, tokenizer, questions, json.dumps(UNTIL))

    chosen = [scores.index(max(scores)) for scores in direct]
    right = sum(choice == answer for choice, (_, _, answer) in zip(chosen, QUESTIONS, strict=True))
    assert measured["accuracy"] == right / len(QUESTIONS)
    assert len(QUESTIONS) / 2 < right < len(QUESTIONS)
    # The order of additions depends on the batch, and quantized kernels round accordingly.
    # llama.cpp alone, with flash attention or without, with weights repacked or not, differs from
    # itself by up to 0.7, and by 0.15 in the mean.
    errors = np.abs(np.array(measured["scores"]) - np.array(direct))
    assert errors.max() < 1.2
    assert errors.mean() < 0.3

    texts = measured["continuations"]
    assert len(texts) == len(QUESTIONS)
    assert all(len(text) > 0 and not any(stop in text for stop in UNTIL) for text in texts)

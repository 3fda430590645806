"""Runs the questions through lm-eval's ``local-completions``; prints accuracy and scores as JSON.

Arguments: the server's URL, the model's id, the directory of its tokenizer, the file of questions.
"""

from __future__ import annotations

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask


def main(url: str, model: str, tokenizer: str, questions: str) -> None:
    """Evaluate ``model`` at ``url``."""
    task = ConfigurableTask(
        config={
            "task": "questions",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": questions}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "question",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1},
        }
    )
    results = simple_evaluate(
        model="local-completions",
        model_args={
            "base_url": f"{url}/v1/completions",
            "model": model,
            "tokenizer": tokenizer,
            "tokenizer_backend": "huggingface",
            "add_bos_token": True,
            "max_retries": 1,
            "timeout": 120,
        },
        tasks=[task],
        batch_size=8,
        bootstrap_iters=0,
    )
    samples = sorted(results["samples"]["questions"], key=lambda sample: sample["doc_id"])
    scores = [[score for [[score, _]] in sample["resps"]] for sample in samples]
    accuracy = results["results"]["questions"]["acc,none"]
    print(json.dumps({"accuracy": accuracy, "scores": scores}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Runs the questions through lm-eval's ``local-completions``: as choices, and to be continued.

Prints accuracy, scores and continuations as JSON. Arguments: the server's URL, the model's id, the
directory of its tokenizer, the file of questions, the strings that end a continuation as JSON.
"""

from __future__ import annotations

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask


def main(url: str, model: str, tokenizer: str, questions: str, until: str) -> None:
    """Evaluate ``model`` at ``url``."""
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": questions}},
        "test_split": "test",
        "doc_to_text": "question",
        "metadata": {"version": 1},
    }
    choosing = ConfigurableTask(
        config={
            **data,
            "task": "questions",
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    )
    continuing = ConfigurableTask(
        config={
            **data,
            "task": "continuations",
            "output_type": "generate_until",
            "doc_to_target": "question",
            "generation_kwargs": {"until": json.loads(until), "max_gen_toks": 16},
            "metric_list": [{"metric": "bypass"}],
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
        tasks=[choosing, continuing],
        batch_size=8,
        bootstrap_iters=0,
    )
    samples = sorted(results["samples"]["questions"], key=lambda sample: sample["doc_id"])
    measured = {
        "accuracy": results["results"]["questions"]["acc,none"],
        "scores": [[score for [[score, _]] in sample["resps"]] for sample in samples],
        "continuations": [sample["resps"][0][0] for sample in results["samples"]["continuations"]],
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])

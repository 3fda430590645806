"""Scores the questions with llama.cpp itself: run with a model's file and a directory.

Prints each choice's log probability as JSON, and leaves in DIRECTORY a tokenizer for evaluators
that want one on their side. It shares no code with the server.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.conformance.questions import QUESTIONS

_MAX_TOKENS = 64


class DirectModel:
    """A model in llama.cpp, one sequence, no cache; in the layout that runs on every CPU."""

    def __init__(self, path: str) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.use_extra_bufts = False
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = _MAX_TOKENS
        # Two would wait for each other at every layer while the server computes on the same cores.
        settings.n_threads = settings.n_threads_batch = 1
        settings.flash_attn_type = 0
        self.context = llama_cpp.llama_init_from_model(self.model, settings)

    def tokenize(self, text: str) -> list[int]:
        """Its tokens, after a beginning of sequence where the model wants one."""
        tokens = (llama_cpp.llama_token * _MAX_TOKENS)()
        raw = text.encode()
        count = llama_cpp.llama_tokenize(
            self.vocabulary, raw, len(raw), tokens, _MAX_TOKENS, True, False
        )
        return list(tokens[:count])

    def log_probability(self, text: str, continuation: str) -> float:
        """Of ``continuation`` after ``text``."""
        given, tokens = self.tokenize(text), self.tokenize(text + continuation)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for position, token in enumerate(tokens):
            batch.token[position], batch.pos[position] = token, position
            batch.n_seq_id[position], batch.seq_id[position][0] = 1, 0
            batch.logits[position] = 1
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_batch_free(batch)
        return sum(
            float(self._log_softmax(position - 1)[tokens[position]])
            for position in range(len(given), len(tokens))
        )

    def _log_softmax(self, position: int) -> NDArray[np.float64]:
        pointer = llama_cpp.llama_get_logits_ith(self.context, position)
        logits = np.ctypeslib.as_array(pointer, (self.size,)).astype(np.float64)
        logits -= logits.max()
        result: NDArray[np.float64] = logits - np.log(np.exp(logits).sum())
        return result

    def write_tokenizer(self, directory: str, texts: list[str]) -> None:
        """A Hugging Face tokenizer that is right for ``texts``: it knows what occurs in them.

        Any two tokens that make a third may merge, the likeliest third first. That is what
        sentencepiece does; byte-level BPE numbers its tokens in the order of its merges.
        """
        is_bytes = llama_cpp.llama_vocab_type(self.vocabulary) == llama_cpp.LLAMA_VOCAB_TYPE_BPE
        space = "Ġ" if is_bytes else "▁"
        haystack = "\n".join(texts).replace(" ", space)
        ids: dict[str, int] = {}
        for token in range(self.size):
            text = llama_cpp.llama_vocab_get_text(self.vocabulary, token).decode()
            if text and text in haystack:
                ids[text] = token
        ranked = sorted(ids, key=lambda text: (-self._score(ids[text]), ids[text]))
        merges = [
            (text[:i], text[i:])
            for text in ranked
            for i in range(1, len(text))
            if text[:i] in ids and text[i:] in ids
        ]
        tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
        if is_bytes:
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
            )
            tokenizer.decoder = decoders.ByteLevel()
        else:
            tokenizer.normalizer = normalizers.Replace(" ", space)
            tokenizer.decoder = decoders.Replace(space, " ")
        self._save(tokenizer, directory)

    def _score(self, token: int) -> float:
        return float(llama_cpp.llama_vocab_get_score(self.vocabulary, token))

    def _save(self, tokenizer: Any, directory: str) -> None:
        special = {}
        for name in ("bos", "eos"):
            token = getattr(llama_cpp, f"llama_vocab_{name}")(self.vocabulary)
            text = llama_cpp.llama_vocab_get_text(self.vocabulary, token).decode()
            special[f"{name}_token"] = text
            if name == "bos" and llama_cpp.llama_vocab_get_add_bos(self.vocabulary):
                tokenizer.post_processor = processors.TemplateProcessing(
                    single=f"{text} $A", special_tokens=[(text, token)]
                )
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
        fast.save_pretrained(directory)


def main() -> None:
    """Write the tokenizer, then print the scores."""
    path, directory = sys.argv[1:]
    model = DirectModel(path)
    texts = [text + choice for text, choices, _ in QUESTIONS for choice in choices]
    model.write_tokenizer(directory, texts)
    scores = [
        [model.log_probability(text, choice) for choice in choices]
        for text, choices, _ in QUESTIONS
    ]
    print(json.dumps(scores))


if __name__ == "__main__":
    main()

"""llama.cpp by itself, the reference for the server's answers; it shares no code with the server.

    python -m tests.conformance.direct questions MODEL DIRECTORY
    python -m tests.conformance.direct positions MODEL < answer.json

The first prints the log probability of each choice of the questions as JSON, and leaves in
DIRECTORY a tokenizer for evaluators that want one on their side. The second prints what `positions`
gives for the answer on its standard input.
"""

from __future__ import annotations

import ctypes
import json
import sys
from functools import cached_property
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.conformance.questions import QUESTIONS

_MAX_TOKENS = 256


class DirectModel:
    """A model in llama.cpp: one sequence, no cache, in the layout that runs on every CPU."""

    def __init__(self, path: str) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.use_extra_bufts = False
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = _MAX_TOKENS
        # With two threads, both would wait at every layer while the server uses the same cores.
        settings.n_threads = settings.n_threads_batch = 1
        settings.flash_attn_type = 0
        self.context = llama_cpp.llama_init_from_model(self.model, settings)

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Its tokens, after a beginning of sequence where the model wants one."""
        tokens = (llama_cpp.llama_token * _MAX_TOKENS)()
        raw = text.encode()
        count = llama_cpp.llama_tokenize(
            self.vocabulary, raw, len(raw), tokens, _MAX_TOKENS, True, parse_special
        )
        return list(tokens[:count])

    def log_probability(self, text: str, continuation: str) -> float:
        """The log probability of ``continuation`` after ``text``."""
        given, tokens = self.tokenize(text), self.tokenize(text + continuation)
        self._decode(tokens)
        return sum(
            float(self._log_softmax(position - 1)[tokens[position]])
            for position in range(len(given), len(tokens))
        )

    def positions(self, prompt: str, answer: list[list[str]]) -> list[dict[str, list[float]]]:
        """Log probabilities at every token of an answer.

        Args:
            prompt: The native prompt.
            answer: For each token the bytes in hexadecimal of itself and of its alternatives.

        Returns:
            For each token the ``scores`` of itself and of its alternatives, and the ``best`` there
            are, as many as there are alternatives.
        """
        given = self.tokenize(prompt, parse_special=True)
        tokens = [self._by_piece[bytes.fromhex(pieces[0])] for pieces in answer]
        self._decode(given + tokens)
        found = []
        for position, pieces in enumerate(answer, len(given) - 1):
            scores = self._log_softmax(position)
            ids = [self._by_piece[bytes.fromhex(piece)] for piece in pieces]
            best = np.sort(scores)[::-1][: len(pieces) - 1]
            found.append({"scores": scores[ids].tolist(), "best": best.tolist()})
        return found

    @cached_property
    def _by_piece(self) -> dict[bytes, int]:
        """Tokens by what they stand for; of those that stand for one byte the byte's own last."""
        found: dict[bytes, int] = {}
        for token in range(self.size):
            piece = ctypes.create_string_buffer(1024)
            length = llama_cpp.llama_token_to_piece(self.vocabulary, token, piece, 1024, 0, True)
            attributes = llama_cpp.llama_vocab_get_attr(self.vocabulary, token)
            if attributes & llama_cpp.LLAMA_TOKEN_ATTR_BYTE:
                found.setdefault(piece.raw[:length], token)
            else:
                found[piece.raw[:length]] = token
        return found

    def _decode(self, tokens: list[int]) -> None:
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
    """Run the command in ``sys.argv``."""
    task, path, *directory = sys.argv[1:]
    model = DirectModel(path)
    if task == "positions":
        answer = json.load(sys.stdin)
        print(json.dumps(model.positions(answer["prompt"], answer["tokens"])))
        return
    texts = [text + choice for text, choices, _ in QUESTIONS for choice in choices]
    model.write_tokenizer(directory[0], texts)
    scores = [
        [model.log_probability(text, choice) for choice in choices]
        for text, choices, _ in QUESTIONS
    ]
    print(json.dumps(scores))


if __name__ == "__main__":
    main()

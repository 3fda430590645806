"""Whether a model continues text (base) or answers (instruct, chat), with reasons.

No single fact in a GGUF file decides it, so each adds to a score and to the reasons shown to the
user. Strong evidence is the model's name and the token that ends its answers. A chat template is
weaker (Qwen2.5's base files carry one), and turn tokens in the vocabulary prove nothing (base Gemma
3 has them).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from server.core.model_info import ModelKind

# The points are choices, made for the cases in tests/unit/prompt/test_kind.py: one strong fact
# decides; a template decides only with a weak fact; a name that says "base" cancels a strong fact,
# and a template beside the two changes nothing.
_STRONG, _TEMPLATE, _WEAK = 3, 2, 1

ANSWERS_FROM = _STRONG
"""The score from which a model is taken to answer rather than to continue."""

TURN_ENDS = frozenset(
    {"<|im_end|>", "<|eot_id|>", "<|eot|>", "<end_of_turn>", "<|end|>"}
    | {"<|END_OF_TURN_TOKEN|>", "<|return|>", "<turn|>", "<|eom_id|>"}
)
CONVERSATION_WORDS = frozenset({"chat", "assistant", "vicuna", "zephyr", "hermes", "openchat"})
INSTRUCTION_WORDS = frozenset(
    {"instruct", "instruction", "it", "sft", "dpo", "orpo", "rlhf", "thinking", "thinker"}
    | {"reasoning", "alpaca"}
)
BASE_WORDS = frozenset({"base", "pt", "pretrain", "pretrained", "foundation"})


class KindVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A model's kind, with the reasons in sentences for the user."""

    kind: ModelKind
    reasons: list[str]

    def configured(self, kind: ModelKind) -> KindVerdict:
        """The verdict where the model's owner says that it is of this ``kind``."""
        return KindVerdict(kind=kind, reasons=[f"configured as {kind}", *self.reasons])


def detect_kind(
    metadata: Mapping[str, str], file_name: str, eos_text: str | None, *, has_template: bool
) -> KindVerdict:
    """Judge a model by its GGUF metadata, file name and end-of-sequence text.

    A model that answers is ``chat`` if its name or tags speak of conversation and not of
    instructions, else ``instruct``. Both are served alike; the word only tells users what the
    model's author trained it for.

    Args:
        metadata: The GGUF file's key-values, as text.
        file_name: Name of the model's file.
        eos_text: Text of the end-of-sequence token, if the vocabulary has one.
        has_template: Whether the file holds a chat template.
    """
    words = _words(
        (metadata.get("general.finetune", ""), metadata.get("general.name", ""), file_name)
    )
    conversational = "conversational" in metadata.get("general.tags", "")
    evidence = list(_evidence(metadata, words, eos_text, has_template, conversational))
    score = sum(points for points, _ in evidence)
    kind: ModelKind = "base"
    if score >= ANSWERS_FROM:
        talks = conversational or words & CONVERSATION_WORDS
        kind = "chat" if talks and not words & INSTRUCTION_WORDS else "instruct"
    reasons = [f"{points:+d}: {reason}" for points, reason in evidence]
    relation = "at least" if score >= ANSWERS_FROM else "less than"
    reasons.append(f"score {score}, {relation} {ANSWERS_FROM}: {kind}")
    if kind == "base" and has_template:
        reasons.append("its chat template is used for chats all the same")
    return KindVerdict(kind=kind, reasons=reasons)


def named_for_ranking(*names: str) -> bool:
    """Whether one of a model's names says that it ranks texts."""
    return any("rerank" in name.casefold() for name in names)


def _words(texts: Iterable[str]) -> set[str]:
    """The words in names like ``gemma-3-270m-it-Q4_K_M.gguf``, in lower case."""
    words = set()
    for text in texts:
        words.update(re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", text))
        words.update(re.split(r"[^A-Za-z]+", text))
    return {word.lower() for word in words}


def _evidence(
    metadata: Mapping[str, str],
    words: set[str],
    eos_text: str | None,
    has_template: bool,
    conversational: bool,
) -> Iterable[tuple[int, str]]:
    if eos_text in TURN_ENDS:
        yield _STRONG, f"its end-of-sequence token {eos_text} ends a turn"
    tuned = sorted(words & (INSTRUCTION_WORDS | CONVERSATION_WORDS))
    if tuned:
        yield _STRONG, f"its name says {', '.join(tuned)}"
    base = sorted(words & BASE_WORDS)
    if base:
        yield -_STRONG, f"its name says {', '.join(base)}"
    if has_template:
        yield _TEMPLATE, "it has a chat template"
    if conversational:
        yield _WEAK, "it is tagged conversational"
    elif metadata.get("general.base_model.count", "0") != "0":
        yield _WEAK, "it is tuned from another model (general.base_model)"
    if not has_template:
        yield 0, "it has no chat template"
